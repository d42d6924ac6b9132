#!/usr/bin/env python3
"""Writes src/text/unicode_tables.cc: the character classes that the regular expressions of `tokenizers` see.

Our tokenizers must split text exactly where Hugging Face `tokenizers` does, whatever Unicode version the libraries of
this machine follow. So the classes are asked of `tokenizers` itself, one question for every code point.

usage: pip install tokenizers==0.23.3; tools/make_unicode_tables.py > src/text/unicode_tables.cc
"""

import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]

# The order is that of CharClass in unicode.h.
CLASSES = [r"\p{Lu}", r"\p{Lt}", r"\p{Ll}", r"\p{Lm}", r"\p{Lo}", r"\p{M}", r"\p{N}", r"\p{P}", r"\p{S}", r"\s"]
WORD, DIGITS, PUNCTUATION, NORMALIZATION_BARRIER = 0x10, 0x20, 0x40, 0x80


def removed_by(pre_tokenizer):
    """Code points that `pre_tokenizer`, which removes what it matches, takes out of a text of all code points."""
    kept = set()
    for piece, _ in pre_tokenizer.pre_tokenize_str("".join(map(chr, CODE_POINTS))):
        kept.update(map(ord, piece))
    return set(CODE_POINTS) - kept


def matched_by(pattern):
    return removed_by(pre_tokenizers.Split(Regex(pattern), "removed"))


def digits():
    pieces = pre_tokenizers.Digits().pre_tokenize_str("a".join(map(chr, CODE_POINTS)))
    return {ord(c) for piece, _ in pieces if "a" not in piece for c in piece}


def normalization_barriers(marks):
    """Code points that younger Unicode versions decompose or reorder and the normalizers of `tokenizers` do not."""
    decompose = normalizers.NFKD().normalize_str
    barriers = set()
    for c in CODE_POINTS:
        char = chr(c)
        if decompose(char) != unicodedata.normalize("NFKD", char):
            barriers.add(c)
        if c not in marks or unicodedata.combining(char) == 1:
            continue
        reordered = decompose("a" + char + "\u0334") != "a" + decompose(char) + "\u0334"
        unknown = unicodedata.category(char) == "Cn"
        if not reordered and (unknown or unicodedata.combining(char) > 0):
            barriers.add(c)
    return barriers


def main():
    properties = [0] * 0x110000
    for number, pattern in enumerate(CLASSES, start=1):
        for c in matched_by(pattern):
            assert properties[c] == 0, hex(c)
            properties[c] = number
    marks = {c for c in CODE_POINTS if properties[c] == 1 + CLASSES.index(r"\p{M}")}
    flags = {
        WORD: matched_by(r"\w"),
        DIGITS: digits(),
        PUNCTUATION: removed_by(pre_tokenizers.Punctuation("removed")),
        NORMALIZATION_BARRIER: normalization_barriers(marks),
    }
    for flag, members in flags.items():
        for c in members:
            properties[c] |= flag
    ranges = [(c, p) for c, p in enumerate(properties) if c == 0 or p != properties[c - 1]]

    print(f"// Made by tools/make_unicode_tables.py with tokenizers {tokenizers.__version__}. Do not edit.")
    print('#include "text/unicode_tables.h"\n')
    print("namespace swiftkv {\n")
    print("// clang-format off")
    print("const uint32_t kUnicodeRanges[] = {")
    for row in range(0, len(ranges), 12):
        print("".join(f"{start << 8 | value:#x}," for start, value in ranges[row : row + 12]))
    print("};")
    print("// clang-format on")
    print(f"const int kUnicodeRangeCount = {len(ranges)};\n")
    print("}  // namespace swiftkv")


main()
