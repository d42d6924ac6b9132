#!/usr/bin/env python3
"""Writes tests/golden/engine/smollm2_greedy.json: greedy continuations of SmolLM2-135M-Instruct by transformers in FP32.

    python3 tools/make_generate_goldens.py MODEL.gguf tests/golden/engine/smollm2_greedy.json

MODEL.gguf is the default model (scripts/setup puts it under ~/.cache/swiftkv/models). Made with transformers 5.23.0 and
torch 2.15.0 on CPU. Each case: the prompt, its token ids, the continuation's ids and text, and whether the prompt is a
user's message in the chat template.
"""
import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    (False, "The capital of France is", 40),
    (False, "def fibonacci(n):\n", 60),
    (False, "Once upon a time, in a small village by the sea, there lived", 60),
    (False, "Das Wetter in Berlin ist heute", 24),
    (True, "Name three rivers of Europe.", 60),
    (True, "Write one sentence about glaciers — in French if you can.", 40),
]


def main(path, out):
    folder, name = os.path.split(os.path.abspath(path))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    cases = []
    for chat, prompt, new_tokens in PROMPTS:
        if chat:
            messages = [{"role": "user", "content": prompt}]
            text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            ids = tokenizer(text, add_special_tokens=False).input_ids
        else:
            ids = tokenizer(prompt).input_ids
        with torch.no_grad():
            output = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=new_tokens,
                                    eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id)
        new = output[0, len(ids):].tolist()
        cases.append({"chat": chat, "prompt": prompt, "max_tokens": new_tokens, "prompt_token_ids": ids,
                      "token_ids": new, "text": tokenizer.decode(new, skip_special_tokens=True)})
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(cases, file, ensure_ascii=False, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
