#!/usr/bin/env python3
"""Writes tests/golden/model/ridge_fit.txt: weighted ridge regression by numpy's own solver, in float64.

    python tools/make_ridge_goldens.py     # numpy 2.4.6

One tensor a line: name, then its values. Inputs have unequal scales, so that the penalty's scaling is seen.
"""
import pathlib

import numpy as np

TOKENS, INPUTS, OUTPUTS, LAMBDA = 40, 7, 5, 0.05

random = np.random.default_rng(7)
x = (random.standard_normal((TOKENS, INPUTS)) * np.linspace(0.3, 2.0, INPUTS) + 0.4).astype(np.float32)
true = random.standard_normal((OUTPUTS, INPUTS))
y = (x @ true.T + 0.3 * random.standard_normal((TOKENS, OUTPUTS)) + np.arange(OUTPUTS)).astype(np.float32)
w = random.uniform(0.02, 3.0, TOKENS).astype(np.float32)

tensors = {"x": x, "y": y, "w": w}
for name, intercept in (("plain", False), ("intercept", True)):
    xd, yd, wd = x.astype(np.float64), y.astype(np.float64), w.astype(np.float64)[:, None]
    x0 = (wd * xd).sum(0) / wd.sum() if intercept else np.zeros(INPUTS)
    y0 = (wd * yd).sum(0) / wd.sum() if intercept else np.zeros(OUTPUTS)
    penalty = LAMBDA * np.mean(np.diag((xd - x0).T @ (wd * (xd - x0))))
    # The same minimum as an ordinary least-squares problem: rows sqrt(w) x, then sqrt(penalty) times the identity.
    a = np.vstack([np.sqrt(wd) * (xd - x0), np.sqrt(penalty) * np.eye(INPUTS)])
    b = np.vstack([np.sqrt(wd) * (yd - y0), np.zeros((INPUTS, OUTPUTS))])
    weight = np.linalg.lstsq(a, b, rcond=None)[0].T
    bias = y0 - weight @ x0
    tensors[f"{name}.weight"] = weight
    tensors[f"{name}.residual"] = (wd * (yd - xd @ weight.T - bias) ** 2).sum(0)
    if intercept:
        tensors[f"{name}.bias"] = bias

path = pathlib.Path(__file__).parent.parent / "tests/golden/model/ridge_fit.txt"
path.parent.mkdir(parents=True, exist_ok=True)
with open(path, "w") as out:
    for name, values in tensors.items():
        print(name, *(f"{v:.9g}" for v in np.asarray(values).ravel()), file=out)
