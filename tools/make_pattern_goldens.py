#!/usr/bin/env python3
"""Makes tests/golden/pattern/patterns.json: how the regular expressions of Hugging Face `tokenizers` (Oniguruma) split
texts, above all where PCRE2 would take the same expression for another.

usage: pip install tokenizers==0.23.3; tools/make_pattern_goldens.py [--out FILE]
"""

import argparse
import json

from tokenizers import Regex, pre_tokenizers

DIGITS = ["1234567", "12 1234"]
AS = ["aaaaa", "aaaaxaa", "baab aaab"]
FOLDS = ["ß ẞ ss SS sS ſs", "ﬁ fi FI ﬃ ffi ﬆ st ŉ ʼn", "straße STRASSE office aſk K k K"]
WORDS = ["a\u0301b c_\u203fd x\u20dd-y", "naïve façade 12a ²³ Ⅷ Ⓐb", "हिन्दी भाषा, e\u0301t"]
LINES = ["a\nb\na", "a\r\nb\x85c\u2028d\x0be\x0cf", "x\n b xb\n"]
CASES = "aB aC cD c C abd ABD aBd"
CHARS = "aⅧ\u0345é1²٣Ⓐ_\u203f \u00a0\u180e\u200b$+.,«§ः"
HAN = "一、二〇 あーい カーど 漢字、かな。ー々 ㈱"

PATTERNS = [
    # Repetitions of repetitions.
    *[(p, DIGITS) for p in (r"\p{N}{1,3}+", r"\p{N}{1,3}", r"\d{2}+", r"\d{2,}+", r"\p{N}{1,3}?", r"(\d{1,2}+)x?")],
    *[(p, AS) for p in ("a{2}?", "a{1,3}?", "a{,2}", "a{,}", "a{2}*b", "a{2}{2}", "a+*", "a**", "a*?+", "a++", "a*+b",
                        "a?+a", "(?:a{1,2}+b)", "[a]{,2}+", r"\x61{2}+", r"\u0061{2}?b", "(a|b){1,2}+", "a{2,2}?",
                        "a(?#two{2}){2}", "xa{", "a{x}", "a{1", "a{ 1,2}", "(?>a{2}+)", "a{0,1}+b")],
    # Options.
    *[(p, LINES) for p in ("(?m)a.b", "(?m:a.)b", "(?-m)a.b", "(?mi)A.B", "(?im:A.B)", "x(?m).|b", "(?m:.)(?-m:.)", "a.b",
                           "^b", "a$", "^", "$", ".", r"\v+", r"[\v]", r"\R", r"\N+", r"\s+$")],
    *[(p, [CASES]) for p in ("a(?i)b|c", "(?i)a|b", "(a(?i)b|c)d", "(?i:ab|c)d", "(?i)c(?-i)|d", "((?i)a)b", "(?i:a)b")],
    # Folding that changes lengths: to be refused.
    *[(p, FOLDS) for p in ("(?i:ss)", "(?i:fi)", "(?i:ß)", "(?i:[ß])", r"(?i)\x73s", "(?i:f(?:i))", "(?i:sS)", "(?i:st)",
                           "(?i)ʼn", "(?i:a|office)")],
    # Folding that does not.
    *[(p, FOLDS) for p in ("(?i:s)s", "(?i:s+)", "(?i:s|k)", "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:f|i)", "(?i:(f)(i))",
                           "(?i:as)k", "(?i:f)(?i:i)", r"(?i:\p{Lu})", r"(?i:[k])")],
    # Words.
    *[(p, WORDS) for p in (r"\b.", r"\B.", r"\b\w+\b", r"\w+", r"\W+", r"\h+", r"[\w-]+", r"[^\w]+")],
    # Properties and classes.
    *[(p, [HAN, CHARS]) for p in (r"\p{Han}+", r"[\p{Han}]+", r"\p{Hiragana}+", r"\p{Katakana}", r"\P{Han}+",
                                  r"\p{^Han}+", r"[\p{Han}\p{Hiragana}]+", r"\P{^L}+", r"\p{Alpha}+", r"\p{Latin}+")],
    *[(f"[[:{n}:]]+", [CHARS]) for n in ("alpha", "alnum", "space", "word", "punct", "digit", "upper", "lower")],
    # What the two take alike.
    (r"[^\s\p{L}]+", [CHARS]), (r"(?<!a)b|(?<=c)d", [CASES]), (r"(?<n>a)b\k<n>", ["aba"]), (r"(a|b)\1", ["aba aab abb"]),
    (r"(?<first>a|b)+c", ["abac bc"]), (r"[]a]+|[^]a]", ["a]b"]), (r"\d+|\D", ["1٣²x"]), (r"\x{61}|\u0062|\141", ["abc"]),
    (r"\e|\t|\.", ["\x1b\t.e"]), (r"\X", ["e\u0301x👨‍👩‍👧"]), (r"(?=a)a|(?!b).", ["ab"]), (r"一+|é{2}", ["一一éé"]),
]


def pieces(pattern, text):
    return [piece for piece, _ in pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="tests/golden/pattern/patterns.json")
    out = parser.parse_args().out
    cases = [
        {"regex": pattern, "texts": [{"text": text, "pieces": pieces(pattern, text)} for text in texts]}
        for pattern, texts in PATTERNS
    ]
    with open(out, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
