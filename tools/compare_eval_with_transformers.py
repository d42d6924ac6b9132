#!/usr/bin/env python3
"""Asks transformers the prompts of a `swiftkv eval --log-samples` run, and compares document by document.

    swiftkv eval MODEL --mode base --dtype f32 --data SETS --limit 200 --output-path OUT --log-samples
    python3 tools/compare_eval_with_transformers.py MODEL [--documents N] [--max-gen-toks N] OUT/samples_*_base.jsonl

MODEL is a Hugging Face folder. Log-likelihoods are computed as lm-eval's `hf` backend does: tokens of context +
continuation, those past the context's own are summed. Answers are greedy. For each file: documents with the same choice
(or the same text), the greatest difference of a log-likelihood, and every document that differs. Made with transformers
5.23.0 and torch 2.15.0 on CPU in FP32.
"""
import argparse
import copy
import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Model:
    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.prefix, self.cache = [], None

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def encode_pair(self, context, continuation):
        spaces = len(context) - len(context.rstrip())
        if spaces > 0:
            continuation = context[-spaces:] + continuation
            context = context[:-spaces]
        whole = self.encode(context + continuation)
        return whole, len(self.encode(context))

    def share(self, prompts):
        """Keeps the cache of what all token lists begin with."""
        length = min(len(p) for p in prompts) - 1
        while any(p[:length] != prompts[0][:length] for p in prompts):
            length -= 1
        self.prefix = prompts[0][:length]
        self.cache = self.model(torch.tensor([self.prefix]), use_cache=True).past_key_values if length > 0 else None

    def loglikelihood(self, ids, context_tokens):
        shared = min(len(self.prefix), context_tokens - 1)
        cache = None
        if self.cache is not None and shared == len(self.prefix):
            cache = copy.deepcopy(self.cache)
        else:
            shared = 0
        logits = self.model(torch.tensor([ids[shared:-1]]), past_key_values=cache, use_cache=True).logits[0]
        logprobs = torch.log_softmax(logits[context_tokens - 1 - shared:].double(), dim=-1)
        return logprobs.gather(1, torch.tensor(ids[context_tokens:])[:, None]).sum().item()

    def answer(self, arguments, max_gen_toks):
        text = arguments[0]
        if isinstance(text, dict):
            text = self.tokenizer.apply_chat_template(arguments, add_generation_prompt=True, tokenize=False)
        ids = self.encode(text)
        output = self.model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=max_gen_toks,
                                     pad_token_id=self.tokenizer.eos_token_id)
        new = output[0, len(ids):].tolist()
        if new and new[-1] == self.tokenizer.eos_token_id:
            new.pop()
        return self.tokenizer.decode(new, skip_special_tokens=False)


def compare_choices(model, samples):
    pairs = [[model.encode_pair(*argument) for argument in sample["arguments"]] for sample in samples]
    model.share([ids[:context] for document in pairs for ids, context in document])
    same, greatest = 0, 0.0
    for sample, document in zip(samples, pairs):
        ours = [response[0] for response in sample["resps"]]
        theirs = [model.loglikelihood(ids, context) for ids, context in document]
        greatest = max(greatest, max(abs(a - b) for a, b in zip(ours, theirs)))
        if ours.index(max(ours)) == theirs.index(max(theirs)):
            same += 1
        else:
            print(f"  document {sample['doc_id']}: ours {ours}, transformers {theirs}")
    return same, f", greatest difference of a log-likelihood {greatest:.6f}"


def compare_answers(model, samples, max_gen_toks):
    same = 0
    for sample in samples:
        ours = sample["resps"][0]
        theirs = model.answer(sample["arguments"], max_gen_toks)
        if ours == theirs:
            same += 1
            continue
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        print(f"  document {sample['doc_id']}: from character {at}: ours {ours[at:at + 40]!r}, "
              f"transformers {theirs[at:at + 40]!r}")
    return same, " (texts)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("samples", nargs="+")
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--max-gen-toks", type=int, default=1024)
    options = parser.parse_args()
    model = Model(options.model)
    with torch.no_grad():
        for path in options.samples:
            rows = [json.loads(line) for line in open(path, encoding="utf-8")]
            samples = list({row["doc_id"]: row for row in rows}.values())[:options.documents]
            print(path)
            if isinstance(samples[0]["resps"][0], str):
                same, note = compare_answers(model, samples, options.max_gen_toks)
            else:
                same, note = compare_choices(model, samples)
            print(f"  {same} of {len(samples)} documents the same{note}", flush=True)


if __name__ == "__main__":
    main()
