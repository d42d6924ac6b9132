#!/usr/bin/env python3
"""Makes tests/golden/distill/kernels.safetensors: backward passes of single operations, by PyTorch's autograd in float64.

    python tools/make_distill_kernel_goldens.py [tests/golden/distill/kernels.safetensors]

F32 unless said, row-major; d<x> is the gradient of sum(y * dy) by x, dy given. Shapes, where T is tokens:

  linear.{x [T, in], w [out, in], bias [out], dy [T, out], dx, dw, dbias}
  rms_norm.{x [T, size], weight [size], dy, y, dx, dweight}          eps 1e-5; the last row is near zero, so eps counts
  rope.{x [T, heads, dim], positions I32 [T], cos, sin [max position + 1, dim / 2], dy, y, dx}     as kernels/ops.h's Rope
  rope_norm.{norm_weight [dim], y, dx, dnorm_weight}                 the same with q_norm's RMSNorm before it, eps 1e-6
  silu_mul.{gate_up [T, 2 * size], dy [T, size], y, dgate_up}        values up to 60 in size
  attention.<case>.{q [T, heads, dim], k, v [T, kv_heads, dim], document_begins I32, window I32 [1] (0: none), dy, y,
      dq, dk, dv}                                                    causal within each document, scale 1 / sqrt(dim)
  kl.<case>.{teacher, student [T, vocab] (logits), in_loss I32 [T], temperature [1], per_position [T] (temperature^2 KL,
      0 where not in the loss), loss [1] (their sum / positions in the loss), dstudent (of loss)}
  lm_head_kl.{teacher, student [T, hidden], lm_head [vocab, hidden], in_loss, temperature, loss, dstudent}   the same from
      the final hidden states
  hidden.{teacher, student [T, hidden], mse [1], dmse, relative [1], drelative}   gradients by student
  adamw.{value [n], gradient [steps, n], values [steps, n], first_moment, second_moment [n] (after the last)}
      learning_rate 0.05, weight_decay 0.1, betas 0.9, 0.999, eps 1e-8; each gradient clipped to norm 1 before
"""
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

OUT = {}


def put(name, tensor):
    """Stores float32 and hands back those very values in float64, ready for a gradient."""
    if tensor.is_floating_point():
        OUT[name] = tensor.detach().float().contiguous()
        return OUT[name].double().requires_grad_()
    OUT[name] = tensor.int().contiguous()
    return tensor


def put_gradients(prefix, y, dy, **inputs):
    put(f"{prefix}.y", y)
    for name, gradient in zip(inputs, torch.autograd.grad((y * dy).sum(), list(inputs.values()))):
        put(f"{prefix}.d{name}", gradient)


def linear():
    x, w, bias = put("linear.x", torch.randn(9, 21)), put("linear.w", torch.randn(13, 21)), put("linear.bias", torch.randn(13))
    dy = put("linear.dy", torch.randn(9, 13))
    put_gradients("linear", F.linear(x, w, bias), dy, x=x, w=w, bias=bias)


def rms_norm():
    rows = torch.randn(5, 21) * torch.tensor([5.0, 1.0, 0.2, 30.0, 1e-3])[:, None]
    x, weight = put("rms_norm.x", rows), put("rms_norm.weight", torch.randn(21))
    dy = put("rms_norm.dy", torch.randn(5, 21))
    put_gradients("rms_norm", F.rms_norm(x, (21,), weight, 1e-5), dy, x=x, weight=weight)


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def rope():
    heads, dim = 3, 16
    positions = put("rope.positions", torch.tensor([0, 1, 2, 3, 0, 1, 11]))
    # A scale other than 1, as yarn's attention factor gives.
    angles = torch.arange(12).double()[:, None] / 1000 ** (torch.arange(0, dim, 2).double() / dim)
    cos, sin = put("rope.cos", 1.2 * angles.cos()).detach(), put("rope.sin", 1.2 * angles.sin()).detach()
    cos, sin = (torch.cat([t, t], dim=-1)[positions][:, None] for t in (cos, sin))
    x = put("rope.x", torch.randn(len(positions), heads, dim))
    dy = put("rope.dy", torch.randn(len(positions), heads, dim))
    put_gradients("rope", x * cos + rotate_half(x) * sin, dy, x=x)
    weight = put("rope_norm.norm_weight", torch.randn(dim))
    normed = F.rms_norm(x, (dim,), weight, 1e-6)
    put_gradients("rope_norm", normed * cos + rotate_half(normed) * sin, dy, x=x, norm_weight=weight)


def silu_mul():
    gate_up = torch.randn(4, 2 * 13) * 8
    gate_up[0, :4] = torch.tensor([60.0, -60.0, 0.0, -1.2785])  # the last: where the slope is 0
    gate_up = put("silu_mul.gate_up", gate_up)
    dy = put("silu_mul.dy", torch.randn(4, 13))
    gate, up = gate_up.chunk(2, dim=-1)
    put_gradients("silu_mul", F.silu(gate) * up, dy, gate_up=gate_up)


def attention(case, heads, kv_heads, dim, lengths, window=0):
    tokens, name = sum(lengths), f"attention.{case}"
    q, k, v = (put(f"{name}.{kind}", torch.randn(tokens, h, dim) * size)
               for kind, h, size in (("q", heads, 2), ("k", kv_heads, 1), ("v", kv_heads, 1)))
    put(f"{name}.document_begins", torch.tensor([sum(lengths[:i]) for i in range(len(lengths))]))
    put(f"{name}.window", torch.tensor([window]))
    dy = put(f"{name}.dy", torch.randn(tokens, heads, dim))
    outs, begin = [], 0
    for length in lengths:
        t = torch.arange(length)
        distance = t[:, None] - t[None, :]
        mask = (distance >= 0) & ((distance < window) if window else True)
        part = [x[begin:begin + length].transpose(0, 1) for x in (q, k, v)]
        part[1:] = [x.repeat_interleave(heads // kv_heads, 0) for x in part[1:]]
        scores = (part[0] @ part[1].transpose(1, 2) / dim**0.5).masked_fill(~mask, float("-inf"))
        outs.append((scores.softmax(-1) @ part[2]).transpose(0, 1))
        begin += length
    put_gradients(name, torch.cat(outs), dy, q=q, k=k, v=v)


def kl_of(teacher, student, in_loss, temperature):
    t, s = F.log_softmax(teacher / temperature, -1), F.log_softmax(student / temperature, -1)
    per_position = temperature**2 * (t.exp() * (t - s)).sum(-1) * in_loss
    return per_position, per_position.sum() / in_loss.sum()


def kl(case, temperature, size, masked=True):
    name, rows, vocab = f"kl.{case}", 6, 101
    teacher = put(f"{name}.teacher", torch.randn(rows, vocab) * size)
    student = put(f"{name}.student", teacher.detach() + torch.randn(rows, vocab) * size / 2)
    in_loss = put(f"{name}.in_loss", torch.tensor([0, 1, 1, 0, 1, 1]) if masked else torch.ones(rows).int())
    put(f"{name}.temperature", torch.tensor([temperature]))
    per_position, loss = kl_of(teacher, student, in_loss, temperature)
    put(f"{name}.per_position", per_position)
    put(f"{name}.loss", loss[None])
    put(f"{name}.dstudent", torch.autograd.grad(loss, student)[0])


def lm_head_kl():
    rows, hidden, vocab = 13, 24, 300
    teacher = put("lm_head_kl.teacher", torch.randn(rows, hidden))
    student = put("lm_head_kl.student", teacher.detach() + 0.5 * torch.randn(rows, hidden))
    lm_head = put("lm_head_kl.lm_head", torch.randn(vocab, hidden) / 2)
    in_loss = put("lm_head_kl.in_loss", (torch.arange(rows) % 3 != 1).int())
    put("lm_head_kl.temperature", torch.tensor([2.0]))
    loss = kl_of(teacher @ lm_head.T, student @ lm_head.T, in_loss, 2.0)[1]
    put("lm_head_kl.loss", loss[None])
    put("lm_head_kl.dstudent", torch.autograd.grad(loss, student)[0])


def hidden_losses():
    # A few channels far larger than the rest, as real models have.
    teacher = torch.randn(6, 20) * torch.where(torch.arange(20) == 7, 200.0, 1.0)
    student = put("hidden.student", teacher + 0.3 * torch.randn(6, 20))
    teacher = put("hidden.teacher", teacher).detach()
    square = (student - teacher).pow(2)
    for name, loss in (("mse", square.mean()), ("relative", (square.sum(-1) / teacher.pow(2).sum(-1)).mean())):
        put(f"hidden.{name}", loss[None])
        put(f"hidden.d{name}", torch.autograd.grad(loss, student, retain_graph=True)[0])


def adamw():
    value = torch.nn.Parameter(put("adamw.value", torch.randn(12)).detach().clone())
    gradients = put("adamw.gradient", torch.randn(6, 12) * torch.tensor([3.0, 0.01, 1.0, 0.1, 1e-5, 10.0])[:, None])
    optimizer = torch.optim.AdamW([value], lr=0.05, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    values = []
    for gradient in gradients.detach():
        value.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([value], 1.0)
        optimizer.step()
        values.append(value.detach().clone())
    put("adamw.values", torch.stack(values))
    put("adamw.first_moment", optimizer.state[value]["exp_avg"])
    put("adamw.second_moment", optimizer.state[value]["exp_avg_sq"])


def main():
    torch.manual_seed(5)
    linear()
    rms_norm()
    rope()
    silu_mul()
    attention("gqa", heads=4, kv_heads=2, dim=8, lengths=[70])
    attention("mha", heads=2, kv_heads=2, dim=16, lengths=[13, 20])
    attention("mqa", heads=3, kv_heads=1, dim=12, lengths=[1, 9, 16, 40, 4])
    attention("window", heads=4, kv_heads=2, dim=8, lengths=[23, 6], window=5)
    kl("t1", 1.0, 2.0)
    kl("t2", 2.0, 2.0)
    kl("t3", 3.0, 2.0)
    kl("unmasked", 2.0, 2.0, masked=False)
    kl("large", 2.0, 300.0)  # probabilities that vanish even in float64
    lm_head_kl()
    hidden_losses()
    adamw()
    save_file(OUT, sys.argv[1] if len(sys.argv) > 1 else "tests/golden/distill/kernels.safetensors")


if __name__ == "__main__":
    main()
