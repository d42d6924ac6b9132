#!/usr/bin/env python3
"""Cuts the texts that docs/calibration.md's tables were measured with.

    tools/make_calibration_texts.py SOURCE OUT

SOURCE holds text/{p3_open,sgd,peps,rust,standardebooks} in their original files. Of every set of rows each tenth
(rows 9, 19, ...) is held out, the others are for the fit; of the novels two are for the fit and a third is held out:

  OUT/p3.jsonl sgd.jsonl peps.jsonl rust.jsonl middlemarch.txt moby-dick.txt    for --calibrate
  OUT/novel.txt sgd-held.jsonl peps-held.jsonl p3-held.jsonl                    for --held-out
"""
import pathlib
import shutil
import sys

ROWS = {"p3": "p3_open/p3_open.jsonl", "sgd": "sgd/sgd_chat.jsonl", "peps": "peps/peps.jsonl", "rust": "rust/rust_book.jsonl"}
NOVELS = {
    "middlemarch": "george-eliot_middlemarch.txt",
    "moby-dick": "herman-melville_moby-dick.txt",
    "novel": "mary-shelley_frankenstein.txt",
}
HELD_OUT = ("p3", "sgd", "peps")


def main():
    text, out = pathlib.Path(sys.argv[1]) / "text", pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name, file in ROWS.items():
        with open(text / file, encoding="utf-8") as rows:
            lines = list(rows)
        (out / f"{name}.jsonl").write_text("".join(line for i, line in enumerate(lines) if i % 10 != 9), encoding="utf-8")
        if name in HELD_OUT:
            (out / f"{name}-held.jsonl").write_text("".join(lines[9::10]), encoding="utf-8")
    for name, file in NOVELS.items():
        shutil.copyfile(text / "standardebooks" / file, out / f"{name}.txt")


if __name__ == "__main__":
    main()
