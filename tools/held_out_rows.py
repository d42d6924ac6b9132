"""Which rows of a .jsonl file `swiftkv distill` holds out, for tools that make training text of the others.

A row is held out where the hash of its line (src/distill/row_file.cc) is below the share of a recipe's `held_out`.
"""
import json

# What the shipped recipes hold out.
SHARES = {"p3_open": 0.01, "sgd": 0.02, "peps": 0.03, "gsm8k_train": 0.02}
MASK = (1 << 64) - 1


def mix(value):
    value = ((value ^ (value >> 30)) * 0xbf58476d1ce4e5b9) & MASK
    value = ((value ^ (value >> 27)) * 0x94d049bb133111eb) & MASK
    return value ^ (value >> 31)


def hash_row(text):
    value = len(text)
    for begin in range(0, len(text), 8):
        value = (mix(value ^ int.from_bytes(text[begin:begin + 8], "little")) + 0x9e3779b97f4a7c15) & MASK
    return mix(value)


assert hash_row(b"a row of text") == 0x9f03ff024b0d345c, "as row_file_test.cc has it"


def training_rows(path):
    """The rows that are trained on."""
    with open(path, "rb") as file:
        lines = [line.strip() for line in file if line.strip()]
    return [json.loads(line) for line in lines if hash_row(line) >= SHARES[path.stem] * 2.0**64]
