#!/usr/bin/env python3
"""Writes tests/golden/kernels/ops.txt: every kernel's inputs and PyTorch's results on small shapes.

Usage: make_kernel_goldens.py tests/golden/kernels/ops.txt
One tensor a line: name, then its float32 values. Made with the versions on the file's first line.
"""

import sys

import torch
import torch.nn.functional as F

LINES = [f"# torch {torch.__version__}"]


def put(name, tensor):
    values = tensor.detach().float().flatten().tolist()
    LINES.append(" ".join([name] + [f"{v:.9g}" for v in values]))
    return tensor


def bf16(tensor):
    return tensor.to(torch.bfloat16).float()


def gemm():
    x = put("gemm.x", bf16(torch.randn(3, 37)))
    w = put("gemm.w", bf16(torch.randn(19, 37)))
    bias = put("gemm.bias", torch.randn(19))
    put("gemm.y", F.linear(x.double(), w.double(), bias.double()))


def norms():
    x = put("rms.x", torch.randn(3, 21) * 5)
    weight = put("rms.weight", torch.randn(21))
    put("rms.y", F.rms_norm(x.double(), (21,), weight.double(), 1e-5))
    gate_up = put("silu.gate_up", torch.randn(2, 2 * 13) * 8)
    gate, up = gate_up.double().chunk(2, dim=-1)
    put("silu.y", F.silu(gate) * up)


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def rope():
    """Hugging Face's apply_rotary_pos_emb, with Qwen3's norm of each head before it."""
    positions = torch.tensor([0, 3, 7])
    dim = 16
    inv_freq = 1.0 / 10000 ** (torch.arange(0, dim, 2).double() / dim)
    angles = torch.arange(8).double()[:, None] * inv_freq
    put("rope.cos", angles.cos())
    put("rope.sin", angles.sin())
    cos = torch.cat([angles.cos()] * 2, dim=-1)[positions][:, None]
    sin = torch.cat([angles.sin()] * 2, dim=-1)[positions][:, None]
    x = put("rope.x", torch.randn(3, 2, dim))
    weight = put("rope.norm_weight", torch.randn(dim))
    x = x.double()
    put("rope.y", x * cos + rotate_half(x) * sin)
    x = F.rms_norm(x, (dim,), weight.double(), 1e-6)
    put("rope.y_norm", x * cos + rotate_half(x) * sin)


def attention():
    """24 tokens of one sequence, 4 query heads on 2 K/V heads, whole and with a window of 5."""
    tokens, heads, kv_heads, dim = 24, 4, 2, 16
    q = put("attention.q", bf16(torch.randn(tokens, heads, dim)))
    k = put("attention.k", bf16(torch.randn(tokens, kv_heads, dim)))
    v = put("attention.v", bf16(torch.randn(tokens, kv_heads, dim)))
    t = torch.arange(tokens)
    causal = t[:, None] >= t[None, :]
    for name, mask in (("y", causal), ("y_window", causal & (t[:, None] - t[None, :] < 5))):
        y = F.scaled_dot_product_attention(
            q.double().transpose(0, 1), k.double().transpose(0, 1), v.double().transpose(0, 1),
            attn_mask=mask, scale=0.25, enable_gqa=True)
        put(f"attention.{name}", y.transpose(0, 1))


def logits():
    p = put("logits.p", torch.randn(2, 33) * 4)
    q = put("logits.q", torch.randn(2, 33) * 4)
    put("logits.argmax", p.argmax(dim=-1))
    put("logits.log_sum_exp", p.double().logsumexp(dim=-1))
    kl = F.kl_div(F.log_softmax(q.double(), -1), F.log_softmax(p.double(), -1), reduction="none", log_target=True)
    put("logits.kl", kl.sum(-1))


def main():
    torch.manual_seed(7)
    for make in (gemm, norms, rope, attention, logits):
        make()
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("\n".join(LINES) + "\n")


if __name__ == "__main__":
    main()
