#!/usr/bin/env python3
"""Makes tests/golden/distill: losses, gradients and twenty optimizer steps of tiny models, by PyTorch's autograd.

    python tools/make_distill_goldens.py --swiftkv-torch PATH/swiftkv_torch.py [--out tests/golden/distill]

Forward passes come from swiftkv_torch.py, an independent PyTorch reference of the method; everything is computed in
float64, each document by itself and from position 0. Written with torch 2.15.0, transformers 5.24.0, safetensors 0.8.0.
(kernels.safetensors beside them: make_distill_kernel_goldens.py.)

cases.json, one object a case:
  name                   of its <name>.safetensors
  base                   the teacher: a case of tests/golden/model/cases.json (its config and its weights)
  num_key_value_layers, key_value_group_size, temperature
  hidden_loss            "none", "mse" (mean of (s - t)^2 over tokens and elements) or "relative" (mean over tokens of
                         |s - t|^2 / |t|^2), where s and t are the student's and the teacher's inputs of the last layer;
                         all tokens count, in_loss or not
  hidden_loss_mult       loss = kl + hidden_loss_mult * hidden
  optimizer              AdamW's numbers; schedule "linear" or "cosine", transformers' get_..._schedule_with_warmup
  rows                   packed sequences: token_ids, in_loss, document_begins as in distill/packed_sequence.h
  expected               of all rows together, at the initial parameters: kl (mean over the positions in the loss of
                         T^2 KL(teacher || student)), hidden (not multiplied), loss, agreement (top-1, same positions),
                         grad_norm (of all gradients together)
  steps                  rows: which rows each step trains on; kl, hidden, loss and grad_norm (before clipping) of those
                         rows before the step's update, learning_rate of the update; final: kl, hidden and loss of all
                         rows after the last step
<name>.safetensors, tensors named by prefix and Hugging Face name:
  initial.<name>         BF16, the student's trainable tensors at the start (their values are float32 masters)
  gradient.<name>        F32, of expected.loss, not clipped
  final.<name>           F32, after the last step
  kl_per_position        F32 [tokens of all rows], T^2 KL at each position, 0 where it is not in the loss
"""
import argparse
import importlib.util
import json
import os

import torch
import torch.nn.functional as F
from make_model_goldens import CASES as BASE_CASES
from make_model_goldens import VOCAB, config_of, model_of, random_like
from safetensors.torch import load_file, save_file
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

STEPS, WARMUP_STEPS = 20, 3


def case(base, n, g, rows, temperature=2.0, hidden=("none", 0.0), masked=True, weight_decay=0.0, schedule="linear",
         learning_rate=4e-3, rows_per_step=None):
    """`rows`: the lengths of each row's documents."""
    return dict(base=base, n=n, g=g, rows=rows, temperature=temperature, hidden=hidden, masked=masked,
                weight_decay=weight_decay, schedule=schedule, learning_rate=learning_rate,
                rows_per_step=rows_per_step or len(rows))


CASES = [
    case("llama", 4, 1, [[24]], masked=False),
    case("llama", 2, 2, [[13, 19]], hidden=("relative", 0.7), schedule="cosine"),
    case("llama", 3, 3, [[3, 9, 1, 14, 5], [20, 2], [11]], temperature=1.0, hidden=("mse", 0.2), weight_decay=0.01,
         rows_per_step=2),
    case("yarn_attention_factor", 4, 1, [[40]], temperature=3.0, hidden=("mse", 1.0)),
    case("llama_bias", 2, 1, [[7, 12, 6]], hidden=("relative", 1.0)),
    case("llama_bias", 2, 2, [[5, 6, 7, 8, 4], [9, 14]], weight_decay=0.01, rows_per_step=1),
    case("llama_mha", 1, 2, [[15, 17]], schedule="cosine", learning_rate=1e-3),
    case("qwen2", 3, 2, [[10, 12, 3, 1, 6]], hidden=("mse", 0.5)),
    case("qwen3", 3, 1, [[8, 20], [17]], temperature=1.0, hidden=("relative", 0.3)),
    case("qwen3", 2, 3, [[6, 6, 1, 10, 5]]),
]


def double_precision(swiftkv_class):
    """The reference, whose norms compute in float32, without a step in float32."""

    class DoubleSwiftKV(swiftkv_class):
        def __init__(self, base, n, g):
            super().__init__(base, n, g)
            for module in base.modules():
                if type(module).__name__.endswith("RMSNorm"):
                    module.forward = lambda x, module=module: self._rms(x, module.weight)
            self.double()

        def _rms(self, x, w):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.cfg.rms_norm_eps) * w

    return DoubleSwiftKV


def make_rows(spec, generator):
    rows = []
    for lengths in spec["rows"]:
        tokens = sum(lengths)
        in_loss = torch.ones(tokens) if not spec["masked"] else (torch.rand(tokens, generator=generator) < 0.7)
        rows.append(dict(token_ids=torch.randint(0, VOCAB, (tokens,), generator=generator).tolist(),
                         in_loss=in_loss.int().tolist(),
                         document_begins=[sum(lengths[:i]) for i in range(len(lengths))]))
    return rows


def documents(row):
    ends = row["document_begins"][1:] + [len(row["token_ids"])]
    for begin, end in zip(row["document_begins"], ends):
        yield torch.tensor([row["token_ids"][begin:end]])


def loss_of(model, rows, spec):
    """Differentiable: loss, kl, hidden. Besides: T^2 KL at each position, agreement."""
    kl, agree, squares, relative = [], [], [], []
    temperature = spec["temperature"]
    for row in rows:
        for ids in documents(row):
            with torch.no_grad():
                x, rope = model.lower(ids)
                teacher_final, teacher_last = model.upper(x, rope, student=False)
                teacher = model.base.lm_head(teacher_final)[0]
            student_final, student_last = model.upper(x, rope, student=True)
            student = model.base.lm_head(student_final)[0]
            t, s = F.log_softmax(teacher / temperature, -1), F.log_softmax(student / temperature, -1)
            kl.append(temperature**2 * (t.exp() * (t - s)).sum(-1))
            agree.append(teacher.argmax(-1) == student.argmax(-1))
            difference = (student_last - teacher_last)[0].pow(2)
            squares.append(difference.mean(-1))
            relative.append(difference.sum(-1) / teacher_last[0].pow(2).sum(-1))
    mask = torch.tensor([m for row in rows for m in row["in_loss"]]).to(kl[0].dtype)
    kl = torch.cat(kl) * mask
    kind, mult = spec["hidden"]
    hidden = torch.cat(relative if kind == "relative" else squares).mean() * (kind != "none")
    mean_kl = kl.sum() / mask.sum()
    return mean_kl + mult * hidden, mean_kl, hidden, kl, (torch.cat(agree) * mask).sum() / mask.sum()


def gradients(model):
    return {name: t.grad.clone() for name, t in model.tensors().items()}


def norm_of(tensors):
    return torch.cat([t.flatten() for t in tensors.values()]).norm().item()


def train(model, rows, spec):
    """STEPS steps; the record for cases.json."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=spec["learning_rate"], betas=(0.9, 0.999), eps=1e-8,
                                  weight_decay=spec["weight_decay"])
    schedule = dict(linear=get_linear_schedule_with_warmup, cosine=get_cosine_schedule_with_warmup)[spec["schedule"]]
    scheduler = schedule(optimizer, WARMUP_STEPS, STEPS)
    record = dict(rows=[], kl=[], hidden=[], loss=[], grad_norm=[], learning_rate=[])
    for step in range(STEPS):
        count = spec["rows_per_step"]
        chosen = [(step * count + i) % len(rows) for i in range(count)]
        optimizer.zero_grad()
        loss, kl, hidden, _, _ = loss_of(model, [rows[i] for i in chosen], spec)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for key, value in dict(rows=chosen, kl=kl.item(), hidden=hidden.item(), loss=loss.item(), grad_norm=norm.item(),
                               learning_rate=scheduler.get_last_lr()[0]).items():
            record[key].append(value)
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        loss, kl, hidden, _, _ = loss_of(model, rows, spec)
    return record | dict(final=dict(kl=kl.item(), hidden=hidden.item(), loss=loss.item()))


def run(model, initial, rows, spec):
    """Expected values, tensors and the record of the steps, in the model's precision."""
    with torch.no_grad():
        for name, t in model.tensors().items():
            t.copy_(initial[name])
    loss, kl, hidden, per_position, agreement = loss_of(model, rows, spec)
    loss.backward()
    gradient = gradients(model)
    tensors = {f"gradient.{k}": v for k, v in gradient.items()} | dict(kl_per_position=per_position.detach())
    expected = dict(kl=kl.item(), hidden=hidden.item(), loss=loss.item(), agreement=agreement.item(),
                    grad_norm=norm_of(gradient))
    model.zero_grad()
    steps = train(model, rows, spec)
    tensors |= {f"final.{k}": v.detach() for k, v in model.tensors().items()}
    return expected, steps, tensors


def compare(name, exact, single):
    """The reference itself, in float32: how far a correct float32 trainer may be, and that the precision is no fiction."""
    worst = 0.0
    for key, value in exact[2].items():
        worst = max(worst, ((single[2][key].double() - value).norm() / value.norm().clamp(min=1e-30)).item())
    loss = max(abs(a - b) / a for a, b in zip(exact[1]["loss"], single[1]["loss"]))
    print(f"{name}: loss {exact[1]['loss'][0]:.4f} -> {exact[1]['final']['loss']:.4f}, gradient norm "
          f"{exact[0]['grad_norm']:.3f}; float32 differs by {worst:.1e} (tensors), {loss:.1e} (losses of the steps)")
    assert worst < 1e-4 and loss < 1e-5, name


def check_loss(swiftkv_torch, model, rows, spec):
    """Our loss is the reference's wherever the reference has one: one document, no mask, plain MSE."""
    ids = next(documents(rows[0]))
    row = dict(token_ids=ids[0].tolist(), in_loss=[1] * ids.shape[1], document_begins=[0])
    ours = loss_of(model, [row], spec | dict(hidden=("mse", 0.7)))[0]
    theirs = swiftkv_torch.loss(model, ids, spec["temperature"], 0.7)
    assert abs(ours - theirs) < 1e-5 * theirs, (ours, theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swiftkv-torch", required=True)
    parser.add_argument("--models", default="tests/golden/model")
    parser.add_argument("--out", default="tests/golden/distill")
    args = parser.parse_args()
    spec = importlib.util.spec_from_file_location("swiftkv_torch", args.swiftkv_torch)
    swiftkv_torch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(swiftkv_torch)
    os.makedirs(args.out, exist_ok=True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(4)
    bases = {name: (weights, fields) for name, weights, fields in BASE_CASES}

    records = []
    for spec in CASES:
        n, g, name = spec["n"], spec["g"], f"{spec['base']}_n{spec['n']}_g{spec['g']}"
        weights, fields = bases[spec["base"]]
        config, state = config_of(weights, fields), load_file(f"{args.models}/{weights}.safetensors")
        single = swiftkv_torch.SwiftKV(model_of(config, state), n, g)
        initial = {}
        for key, value in single.tensors().items():
            noise = random_like(key, value, generator).float() - (1.0 if "norm" in key else 0.0)
            initial[key] = (value.detach() + 0.5 * noise).to(torch.bfloat16)
        rows = make_rows(spec, generator)
        check_loss(swiftkv_torch, single, rows, spec)
        double = double_precision(swiftkv_torch.SwiftKV)(model_of(config, state), n, g)
        exact = run(double, initial, rows, spec)
        compare(name, exact, run(single, initial, rows, spec))
        expected, steps, tensors = exact
        optimizer = dict(learning_rate=spec["learning_rate"], betas=[0.9, 0.999], eps=1e-8,
                         weight_decay=spec["weight_decay"], max_grad_norm=1.0, schedule=spec["schedule"],
                         warmup_steps=WARMUP_STEPS, steps=STEPS)
        records.append(dict(name=name, base=spec["base"], num_key_value_layers=n, key_value_group_size=g,
                            temperature=spec["temperature"], hidden_loss=spec["hidden"][0],
                            hidden_loss_mult=spec["hidden"][1], optimizer=optimizer, rows=rows, expected=expected,
                            steps=steps))
        tensors = {k: v.float().contiguous() for k, v in tensors.items()}
        save_file(tensors | {f"initial.{k}": v for k, v in initial.items()}, f"{args.out}/{name}.safetensors")
    with open(f"{args.out}/cases.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")


if __name__ == "__main__":
    main()
