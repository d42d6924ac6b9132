#!/usr/bin/env python3
"""Asks lm-eval's `hf` backend the prompts of a `swiftkv eval` run, and compares document by document.

    swiftkv eval MODEL --mode base --dtype f32 --data SETS --limit 200 --output-path OURS --log-samples
    python3 tools/compare_eval_with_lm_eval.py MODEL OURS THEIRS [--tasks NAME,NAME] [--documents N]
    swiftkv eval MODEL --mode base --dtype f32 --data SETS --limit 200 --output-path THEIRS --resume

MODEL is a Hugging Face folder. Log-likelihoods come from HFLM.loglikelihood, answers from HFLM.generate_until, greedy,
in FP32 on the CPU. They are kept in THEIRS in swiftkv's own files: this program goes on from them when it starts again,
and the third command, with all options of the first, makes the table of their scores. For each task: documents with the
same choice or text, the greatest difference of a log-likelihood, and for every document that differs the margin by which
lm-eval's model decided. Made with lm-eval 0.4.13, transformers 5.x and torch 2.x.
"""
import argparse
import json
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def documents(path):
    """A sample file's documents; it has a line for each filter."""
    return list({row["doc_id"]: row for row in read_lines(path)}.values())


def requests(sample):
    return [(request["arg_0"], request["arg_1"]) for request in sample["arguments"].values()]


def is_scored(sample):
    return isinstance(requests(sample)[0][1], str)


def loglikelihoods(sample):
    return [float(of_request[0][0]) for of_request in sample["resps"]]


def instances(kind, arguments):
    return [Instance(kind, {}, argument, index) for index, argument in enumerate(arguments)]


def render(model, sample):
    """The text of a prompt that is answered."""
    text = requests(sample)[0][0]
    return model.apply_chat_template(json.loads(text)) if text.startswith('[{"role"') else text


def ask(model, samples, generation):
    """Responses as swiftkv's files hold them."""
    if is_scored(samples[0]):
        pairs = [pair for sample in samples for pair in requests(sample)]
        found = iter(model.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True))
        return [[list(next(found)) for _ in requests(sample)] for sample in samples]
    prompts = [(render(model, sample), dict(generation)) for sample in samples]
    return [[text] for text in model.generate_until(instances("generate_until", prompts), disable_tqdm=True)]


def ask_all(model, samples, ours, theirs, generation):
    """Asks what `theirs` does not hold yet; responses by document."""
    rows = read_lines(theirs)
    known = {row["doc_id"]: row["resps"] for row in rows[1:]}
    hashes = {row["doc_id"]: row["prompt_hash"] for row in read_lines(ours)[1:]}  # not lm-eval's, which samples have
    with open(theirs, "a", encoding="utf-8") as file:
        if not rows:
            file.write(ours.read_text(encoding="utf-8").splitlines()[0] + "\n")  # the job: model and options
        missing = [sample for sample in samples if sample["doc_id"] not in known]
        for begin in range(0, len(missing), model.batch_size):
            part = missing[begin:begin + model.batch_size]
            for sample, resps in zip(part, ask(model, part, generation)):
                known[sample["doc_id"]] = resps
                row = {"doc_id": sample["doc_id"], "prompt_hash": hashes[sample["doc_id"]], "resps": resps}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
    return known


def compare_choices(samples, theirs):
    """By each way to choose that a metric has: sums, and sums a character."""
    ways = {"sum": lambda value, text: value, "by character": lambda value, text: value / len(text)}
    greatest = 0.0
    for name, way in ways.items():
        same = 0
        for sample in samples:
            texts = [continuation[1:] for _, continuation in requests(sample)]
            sums = loglikelihoods(sample), [value for value, _ in theirs[sample["doc_id"]]]
            values = [[way(value, text) for value, text in zip(of, texts)] for of in sums]
            chosen = [max(range(len(texts)), key=lambda i: of[i]) for of in values]
            greatest = max(greatest, max(abs(a - b) for a, b in zip(*sums)))
            same += chosen[0] == chosen[1]
            if chosen[0] != chosen[1]:
                margin = values[1][chosen[1]] - values[1][chosen[0]]
                print(f"  document {sample['doc_id']}, {name}: we choose {chosen[0]}, lm-eval {chosen[1]} by {margin:.2e}")
        print(f"  {name}: {same} of {len(samples)} documents with the same choice")
    print(f"  greatest difference of a log-likelihood: {greatest:.2e}")


def margin_at_difference(model, sample, ours, theirs):
    """Where two answers part, and how much likelier lm-eval's model finds its own next token."""
    prompt = model.tok_encode(render(model, sample), add_special_tokens=False)
    ours, theirs = (model.tok_encode(text, add_special_tokens=False) + [model.eot_token_id] for text in (ours, theirs))
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
    if at is None:
        return "one is the beginning of the other"
    logprobs = torch.log_softmax(model.model(torch.tensor([prompt + theirs[:at]])).logits[0, -1].double(), dim=-1)
    tokens = [model.tokenizer.decode([ids[at]]) for ids in (ours, theirs)]
    margin = (logprobs[theirs[at]] - logprobs[ours[at]]).item()
    return f"from token {at} of {len(theirs)}: we say {tokens[0]!r}, lm-eval {tokens[1]!r}, likelier by {margin:.2e}"


def compare_answers(model, samples, theirs):
    same = 0
    for sample in samples:
        ours, other = sample["resps"][0][0], theirs[sample["doc_id"]][0]
        same += ours == other
        if ours != other:
            print(f"  document {sample['doc_id']}: {margin_at_difference(model, sample, ours, other)}")
    print(f"  {same} of {len(samples)} answers the same")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("ours", type=pathlib.Path)
    parser.add_argument("theirs", type=pathlib.Path)
    parser.add_argument("--tasks", help="beginnings of names; absent: all of the run")
    parser.add_argument("--documents", type=int, help="the first of a task; absent: all of the run")
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    results = json.loads((options.ours / "results_base.json").read_text(encoding="utf-8"))
    model = HFLM(options.model, dtype="float32", device="cpu", batch_size=options.batch_size,
                 max_length=results["max_length"])
    options.theirs.mkdir(parents=True, exist_ok=True)
    wanted = tuple(options.tasks.split(",")) if options.tasks else ("",)
    with torch.no_grad():
        for path in sorted(options.ours.glob("samples_*_base.jsonl")):
            task = path.name.removeprefix("samples_").removesuffix("_base.jsonl")
            if not task.startswith(wanted):
                continue
            print(task, flush=True)
            samples = documents(path)[:options.documents]
            file = f"responses_{task}_base.jsonl"
            theirs = ask_all(model, samples, options.ours / file, options.theirs / file,
                             results["configs"][task].get("generation_kwargs"))
            if is_scored(samples[0]):
                compare_choices(samples, theirs)
            else:
                compare_answers(model, samples, theirs)


if __name__ == "__main__":
    main()
