#!/usr/bin/env python3
"""Writes the evaluation sets from the Hugging Face hub in the layout that `swiftkv eval --data` reads.

    pip install datasets
    python3 tools/export_eval_data.py OUT

The sets in their authors' own files work as well (docs/eval.md); this is for those who have `datasets` at hand. The
eight worked examples of GSM8K are not part of the set: they are in tests/golden/eval/sets/gsm8k and copied from there.
"""
import json
import pathlib
import shutil
import sys

from datasets import load_dataset


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{path}: {sum(1 for _ in open(path, encoding='utf-8'))} rows")


def pick(rows, *names):
    return [{name: row[name] for name in names} for row in rows]


def main(out):
    out = pathlib.Path(out)
    arc = load_dataset("allenai/ai2_arc", "ARC-Challenge")
    for split, name in (("test", "ARC-Challenge-Test.jsonl"), ("train", "train.jsonl")):
        write(out / "arc_challenge" / name, pick(arc[split], "id", "question", "choices", "answerKey"))
    fields = ("sentence", "option1", "option2", "answer")
    write(out / "winogrande/dev.jsonl",
          pick(load_dataset("allenai/winogrande", "winogrande_xl", split="validation"), *fields))
    write(out / "winogrande/train_xs.jsonl",
          pick(load_dataset("allenai/winogrande", "winogrande_xs", split="train"), *fields))
    hellaswag = load_dataset("Rowan/hellaswag")
    fields = ("ind", "activity_label", "ctx_a", "ctx_b", "endings", "label")
    write(out / "hellaswag/hellaswag_val.jsonl", pick(hellaswag["validation"], *fields))
    write(out / "hellaswag/hellaswag_train_fewshot11.jsonl", pick(hellaswag["train"].select(range(11)), *fields))
    truthfulqa = load_dataset("truthfulqa/truthful_qa", "multiple_choice", split="validation")
    write(out / "truthfulqa/truthfulqa_mc_validation.jsonl", pick(truthfulqa, "question", "mc2_targets"))
    mmlu = load_dataset("cais/mmlu", "all")
    for split in ("test", "validation", "dev"):
        write(out / f"mmlu/mmlu_{split}.jsonl", pick(mmlu[split], "subject", "question", "choices", "answer"))
    gsm8k = load_dataset("openai/gsm8k", "main")
    for split in ("test", "train"):
        write(out / f"gsm8k/{split}.jsonl", pick(gsm8k[split], "question", "answer"))
    shots = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/eval/sets/gsm8k/fewshot8_llama31.json"
    shutil.copy(shots, out / "gsm8k" / shots.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
