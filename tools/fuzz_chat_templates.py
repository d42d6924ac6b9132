#!/usr/bin/env python3
"""Compares swiftkv with transformers on random expressions and small templates; see compare_chat_templates.py.

  ~/.cache/templates/bin/python tools/fuzz_chat_templates.py --seconds 60 [--seed 1]
"""
import argparse
import random
import sys
import time
import warnings

import compare_chat_templates as compare
from make_template_goldens import VARIABLES

NAMES = [name for name in VARIABLES if name != "messages"] + ["missing", "x"]
STRINGS = ["", "a", "ab", "a,b", " x ", "Grüße", "日本", "%s", "{}", "{0}", "A b-c", "1", "2.5", "true", "\\n", "\\n a\\nb", "ß", "k", "a b c", "<&>"]
ATTRIBUTES = ["a", "b", "name", "x", "items", "age", "y", "keys", "upper"]
TESTS0 = ["defined", "undefined", "none", "string", "number", "mapping", "iterable", "sequence", "boolean", "true", "false",
          "integer", "float", "odd", "even", "lower", "upper", "callable"]
TESTS1 = ["eq", "ne", "lt", "gt", "le", "ge", "in", "divisibleby", "equalto", "sameas"]
FILTERS0 = ["trim", "length", "tojson", "join", "default", "first", "last", "list", "dictsort", "items", "unique", "sort",
            "reverse", "upper", "lower", "title", "capitalize", "string", "int", "float", "abs", "round", "safe", "escape",
            "indent", "sum", "min", "max", "wordcount", "count", "urlencode", "e"]
FILTERS1 = ["join", "default", "map", "select", "reject", "selectattr", "rejectattr", "replace", "batch", "slice", "round", "int",
            "float", "indent", "trim", "tojson", "format", "groupby", "truncate", "center", "sort", "attr", "min", "unique"]
METHODS0 = ["strip", "lstrip", "rstrip", "split", "rsplit", "upper", "lower", "title", "capitalize", "items", "keys", "values",
            "splitlines", "isdigit", "isalpha", "isspace", "swapcase", "islower", "isupper", "istitle", "isalnum", "copy"]
METHODS1 = ["strip", "lstrip", "rstrip", "split", "rsplit", "startswith", "endswith", "join", "find", "rfind", "count", "format",
            "get", "index", "removeprefix", "removesuffix", "partition", "rpartition", "center", "zfill", "ljust"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]


class Maker:
    def __init__(self, rng):
        self.rng = rng

    def string(self):
        return "'" + self.rng.choice(STRINGS) + "'"

    def atom(self):
        kind = self.rng.randrange(10)
        if kind < 4:
            return self.rng.choice(NAMES)
        if kind < 6:
            return self.string()
        if kind < 8:
            return str(self.rng.choice([0, 1, 2, 3, -1, 7, 10, 1.5, 0.1, 1e20, 100]))
        return self.rng.choice(["true", "false", "none", "[]", "{}", "()", "range(4)", "namespace(a=1)", "dict(a=2)"])

    def expression(self, depth):
        if depth == 0:
            return self.atom()
        sub = lambda: self.expression(depth - 1)
        kind = self.rng.randrange(14)
        if kind < 3:
            return f"({sub()} {self.rng.choice(OPERATORS)} {sub()})"
        if kind == 3:
            return f"({sub()})|{self.rng.choice(FILTERS0)}"
        if kind == 4:
            argument = self.rng.choice([sub(), self.string(), "'" + self.rng.choice(FILTERS0 + TESTS0 + ATTRIBUTES) + "'",
                                        "attribute='" + self.rng.choice(ATTRIBUTES) + "'", str(self.rng.randrange(4)),
                                        f"'{self.rng.choice(ATTRIBUTES)}', '{self.rng.choice(TESTS0)}'",
                                        f"'{self.rng.choice(TESTS1)}', {sub()}", f"{self.string()}, {self.string()}",
                                        "true", "indent=2", "sort_keys=true"])
            return f"({sub()})|{self.rng.choice(FILTERS1)}({argument})"
        if kind == 5:
            return f"({sub()}).{self.rng.choice(METHODS0)}()"
        if kind == 6:
            argument = self.rng.choice([sub(), self.string(), str(self.rng.randrange(5)), f"{self.string()}, {self.rng.randrange(3)}"])
            return f"({sub()}).{self.rng.choice(METHODS1)}({argument})"
        if kind == 7:
            return f"({sub()} is {self.rng.choice(['', 'not '])}{self.rng.choice(TESTS0)})"
        if kind == 8:
            return f"({sub()} is {self.rng.choice(TESTS1)}({sub()}))"
        if kind == 9:
            parts = [self.rng.choice(["", str(self.rng.randrange(-3, 5)), sub()]) for _ in range(self.rng.randrange(2, 4))]
            return f"({sub()})[{':'.join(parts)}]"
        if kind == 10:
            return f"({sub()})[{self.rng.choice([sub(), str(self.rng.randrange(-3, 4)), self.string()])}]"
        if kind == 11:
            return f"({sub()}).{self.rng.choice(ATTRIBUTES)}"
        if kind == 12:
            return self.rng.choice([f"[{sub()}, {sub()}]", f"({sub()}, {sub()})", f"{{{self.string()}: {sub()}, {sub()}: {sub()}}}"])
        return f"({sub()} if {sub()} else {sub()})"

    def statement(self, depth):
        body = lambda: self.statement(depth - 1) if depth else "{{ x }}"
        kind = self.rng.randrange(9)
        expression = self.expression(self.rng.randrange(1, 4))
        if kind < 3:
            return f"{{{{ {expression} }}}}"
        space = self.rng.choice(["", " ", "\n", "\n  ", "-"])
        left, right = ("{%-", "-%}") if space == "-" else ("{%", "%}")
        space = "" if space == "-" else space
        if kind == 3:
            return f"{left} for x in {expression} {right}{space}{body()}{{{{ loop.index }}}}{left} else {right}e{left} endfor {right}"
        if kind == 4:
            return f"{left} for x in {expression} if x {right}{{{{ loop.last }}}}{body()}{left} endfor {right}{space}"
        if kind == 5:
            return f"{space}{left} if {expression} {right}{body()}{left} else {right}{space}{body()}{left} endif {right}{space}"
        if kind == 6:
            return f"{left} set x = {expression} {right}{space}{body()}"
        if kind == 7:
            return f"{left} macro m(x, y={expression}) {right}{body()}{{{{ y }}}}{left} endmacro {right}{space}{{{{ m({self.atom()}) }}}}"
        return f"{left} set x {right}{space}{body()}{left} endset {right}{{{{ x }}}}"


def is_known(expected, got):
    """Where swiftkv says no on purpose, or text that no other process could print."""
    error = got.get("error", "")
    return (any(words in error for words in ("128 bits", "complex", "limit of", "is not supported", "bounds are too large",
                                              "precision too big",
                                              # jinja2 folds some constants by other rules than it evaluates them
                                              "is not subscriptable")) or
            any(words in expected for words in (" at 0x", "<function", "<built-in", "<generator", "j)", "<class")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", default="build/release/render_chat_template")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=10)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    driver = compare.Driver(arguments.driver)
    maker = Maker(random.Random(arguments.seed))
    counts = {"equal": 0, "both failed": 0, "worded differently": 0, "known": 0, "different": 0}
    wording = {}
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        source = maker.statement(maker.rng.randrange(3))
        kind, expected = compare.reference(source, VARIABLES)
        got = driver(source, VARIABLES)
        if kind == "text" and got.get("text") == expected:
            counts["equal"] += 1
        elif is_known(expected, got):
            counts["known"] += 1
        elif kind != "text" and "error" in got:
            counts["both failed"] += 1
            words = got["error"].split(": ", 1)[-1]
            if not expected.endswith(words):
                counts["worded differently"] += 1
                wording.setdefault((expected[:40], words[:40]), source)
        else:
            counts["different"] += 1
            if counts["different"] <= arguments.show:
                print(f"--- {source}\nexpected {kind}: {expected!r}\ngot {got}")
    print(counts)
    return 1 if counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
