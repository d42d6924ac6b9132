#!/usr/bin/env python3
"""Brings the texts that the shipped adapters were distilled on, and those they were only measured on, into one folder.

    tools/make_distill_data.py SOURCE data/distill

SOURCE holds the sets in their original files: text/{p3_open,sgd,peps,rust,standardebooks}, eval/gsm8k/train.jsonl,
long/qmsum.jsonl. The result, as `swiftkv distill` reads it (a line is {"messages": ...} or {"text": ...}):

  train/  p3_open.jsonl sgd.jsonl peps.jsonl gsm8k_train.jsonl and a .txt for each novel
  held_out/  frankenstein.txt (a novel that no run trains on), rust.jsonl and qmsum.jsonl (kinds that none trains on)
"""
import json
import pathlib
import shutil
import sys

HELD_OUT_NOVEL = "frankenstein"


def write_lines(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def gsm8k(path):
    for row in read_lines(path):
        yield {"messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]}


def main():
    source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    train, held_out = out / "train", out / "held_out"
    for folder in (train, held_out):
        folder.mkdir(parents=True, exist_ok=True)
    text = source / "text"
    write_lines(train / "p3_open.jsonl", ({"messages": row["messages"]} for row in read_lines(text / "p3_open/p3_open.jsonl")))
    write_lines(train / "sgd.jsonl", ({"messages": row["messages"]} for row in read_lines(text / "sgd/sgd_chat.jsonl")))
    write_lines(train / "peps.jsonl", ({"text": row["text"]} for row in read_lines(text / "peps/peps.jsonl")))
    write_lines(train / "gsm8k_train.jsonl", gsm8k(source / "eval/gsm8k/train.jsonl"))
    for novel in sorted((text / "standardebooks").glob("*.txt")):
        name = novel.stem.split("_")[1].removeprefix("the-")
        shutil.copyfile(novel, (held_out if name == HELD_OUT_NOVEL else train) / f"{name}.txt")
    rust = [text / "rust/rust_book.jsonl", text / "rust/rust_rfcs.jsonl"]
    write_lines(held_out / "rust.jsonl", ({"text": row["text"]} for path in rust for row in read_lines(path)))
    write_lines(held_out / "qmsum.jsonl", ({"text": row["transcript"]} for row in read_lines(source / "long/qmsum.jsonl")))


if __name__ == "__main__":
    main()
