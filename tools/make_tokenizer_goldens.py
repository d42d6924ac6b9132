#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/*.json: small tokenizers with what Hugging Face `tokenizers` says about them.

Each file holds a whole tokenizer.json, trained on the given texts with the exact normalizers, pre-tokenizers and
decoders of a model family, and cases: a text (or bytes in hexadecimal, where they are not UTF-8), its ids with and
without special tokens, and what the ids decode to, with and without special tokens.

usage: pip install tokenizers==0.23.3; tools/make_tokenizer_goldens.py TEXT... [--vocab-size 420] [--out FOLDER]
The committed files: TEXT is Standard Ebooks' The Time Machine.
With --fuzz-corpus it writes the seeds in tests/fuzz/corpus/tokenizer_json (--out) instead; with --tokenizers-only NAME/tokenizer.json for tools/compare_tokenizers.py.
"""

import argparse
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
MULTILINGUAL = """Größe, façade, naïve, Ærøskøbing. Привет, мир! Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم ١٢٣. नमस्ते दुनिया १२३.
สวัสดีชาวโลก. 你好，世界。こんにちは世界。안녕하세요 세계. Tiếng Việt có dấu. 👋🏽 👨‍👩‍👧‍👦 🇩🇪 ½ ² ³ Ⅷ … — ‘quoted’ “text”
def f(x):\n\treturn x ** 2  # 12345.678 + 1e-9\n\n\n    if x != 0x1F:\r\n        print("%d" % x)\r\n
"""


def byte_level(add_prefix_space=False, use_regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


def special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def bos_template(token="<s>", ident=1):
    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, ident)])


class Recipe:
    """One family: how its tokenizer is trained and put together."""

    def __init__(self, pre, normalizer=None, decoder=None, post=None, added=(), fallback=False, train_pre=None, **model):
        self.pre, self.normalizer, self.decoder, self.post = pre, normalizer, decoder, post
        self.added, self.fallback, self.model = added, fallback, model
        self.train_pre = train_pre or pre

    def train(self, texts, vocab_size):
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if self.fallback or self.model else None))
        if self.normalizer:
            tokenizer.normalizer = self.normalizer
        if self.train_pre:
            tokenizer.pre_tokenizer = self.train_pre
        first = ["<unk>", "<s>", "</s>"] + ([f"<0x{byte:02X}>" for byte in range(256)] if self.fallback else [])
        alphabet = [] if self.fallback or self.model.get("unk_token") else pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size + (60 if self.fallback else 0), special_tokens=first, initial_alphabet=alphabet,
            limit_alphabet=330 if alphabet else 110, show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        trained = json.loads(tokenizer.to_str())["model"]
        merges = [tuple(merge) for merge in trained["merges"]]
        options = dict(self.model, byte_fallback=self.fallback)
        if self.fallback:
            options.setdefault("unk_token", "<unk>")
        result = Tokenizer(models.BPE(trained["vocab"], merges, **options))
        for part, value in (("normalizer", self.normalizer), ("pre_tokenizer", self.pre), ("decoder", self.decoder),
                            ("post_processor", self.post)):
            if value is not None:
                setattr(result, part, value)
        result.add_special_tokens([special(token) for token in ("<unk>", "<s>", "</s>")])
        for token in self.added:
            (result.add_special_tokens if token.special else result.add_tokens)([token])
        return result


def spm_decoder(strip=True):
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


def recipes():
    chat = [special(f"<|{name}|>") for name in ("im_start", "im_end", "eot_id")]
    tools = [AddedToken(name, special=False, normalized=False) for name in ("<tool_call>", "</tool_call>")]
    spaces = normalizers.Replace(" ", "▁")
    awkward = [
        AddedToken("word", single_word=True, normalized=True), AddedToken("<strip>", lstrip=True, rstrip=True),
        AddedToken("Ünï", normalized=True), AddedToken("<left>", lstrip=True, normalized=False),
        special("<mask>", lstrip=True), AddedToken("<r", rstrip=True, normalized=False),
        AddedToken("<right>", rstrip=True, normalized=False), AddedToken("\n\n", normalized=False),
    ]
    sequence = pre_tokenizers.Sequence
    return {
        "gpt2": Recipe(byte_level(use_regex=True), decoder=decoders.ByteLevel(), post=processors.ByteLevel(), added=chat),
        "roberta": Recipe(
            byte_level(True, True), decoder=decoders.ByteLevel(), added=awkward[4:5],
            post=processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
        ),
        "smollm": Recipe(
            sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=True)]),
            decoder=decoders.ByteLevel(), added=chat,
        ),
        "llama3": Recipe(
            sequence([split(Regex(LLAMA3)), byte_level()]), decoder=decoders.ByteLevel(), ignore_merges=True, added=chat,
            post=processors.Sequence([processors.ByteLevel(), bos_template()]),
        ),
        "qwen2": Recipe(
            sequence([split(Regex(QWEN2)), byte_level()]), normalizers.NFC(), decoders.ByteLevel(),
            processors.ByteLevel(), chat + tools,
        ),
        "qwen35": Recipe(sequence([split(Regex(QWEN35)), byte_level()]), normalizers.NFC(), decoders.ByteLevel()),
        "tekken": Recipe(
            sequence([split(Regex(TEKKEN)), byte_level()]), decoder=decoders.ByteLevel(), ignore_merges=True,
            post=bos_template(),
        ),
        "deepseek3": Recipe(
            sequence([split(Regex(r"\p{N}{1,3}")), split(Regex("[一-龥぀-ゟ゠-ヿ]+")), split(Regex(DEEPSEEK3)), byte_level()]),
            decoder=decoders.ByteLevel(),
        ),
        "falcon": Recipe(
            sequence([pre_tokenizers.Punctuation("contiguous"), byte_level(use_regex=True), pre_tokenizers.Digits(),
                      split(Regex("[0-9][0-9][0-9]"))]),
            decoder=decoders.ByteLevel(),
        ),
        "llama2": Recipe(
            None, normalizers.Sequence([normalizers.Prepend("▁"), spaces]), spm_decoder(), bos_template(), fallback=True,
            train_pre=pre_tokenizers.Metaspace(split=True), fuse_unk=True,
        ),
        "mistral": Recipe(
            pre_tokenizers.Metaspace(prepend_scheme="first", split=False), None, spm_decoder(), bos_template(),
            fallback=True, train_pre=pre_tokenizers.Metaspace(split=True), fuse_unk=True, added=chat,
        ),
        "gemma": Recipe(
            split(" ", "merged_with_previous"), spaces, spm_decoder(strip=False), bos_template(), fallback=True,
            fuse_unk=True, added=[AddedToken("\n" * n, normalized=False) for n in (2, 3)],
        ),
        "metaspace": Recipe(
            pre_tokenizers.Metaspace(prepend_scheme="always"), normalizers.NFKC(), decoders.Metaspace(),
            unk_token="<unk>", added=awkward,
        ),
        "lowercase": Recipe(
            sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("merged_with_previous")]),
            normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase(), normalizers.Strip(),
                                  normalizers.Replace(Regex(r"[aeiou]{2,}"), "ä")]),
            unk_token="<unk>", fuse_unk=True, added=awkward,
        ),
        "splits": Recipe(
            sequence([split(",", "merged_with_next"), split(Regex(r"\d+"), "contiguous"), split(Regex("[^aeiou]+"), "removed", True),
                      pre_tokenizers.CharDelimiterSplit("x"), pre_tokenizers.WhitespaceSplit(),
                      pre_tokenizers.Punctuation("merged_with_next"), split(Regex("(?=[A-Z])"))]),
            normalizers.NFD(), decoders.Sequence([decoders.Replace("ab", "<>"), decoders.Strip("e", 1, 1), decoders.Fuse(),
                                                  decoders.Replace("he", "HE")]),
            unk_token="<unk>", fuse_unk=False,
        ),
    }


def cases(texts, added):
    rng = random.Random(7)
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    found = [rng.choice(lines) for _ in range(6)] + MULTILINGUAL.splitlines()
    found += ["", " ", "  ", "\n", " \n \n  x", "a" * 70, "Hello world", " leading and trailing  ", "I'LL we've it'\u017f you'Re '", "x=  12  +345678\t½", "\r\n\r\n a\r\n"]
    found += ["e\u0301 \u1100\u1161\u11a8 ﬁ Å\u0323 İSTANBUL", "<0x41> ▁ Ġ \ufeff \0 \u180e\u00a0\u3000", "aword word words word. password", "<s>a</s> <|im_start|>user\nHi<|im_end|>\n<tool_call>x</tool_call>"]
    found += ["a <strip> b  <left>  c  <right>  d <mask> e <r <right> ünï ÜNÏ\n\n\n\n!", "héhe abab, ,,x1,2 éé The Hexahedron HEHE"]
    found += ["".join(rng.choice(added + [" ", "word", "x"]) for _ in range(8)) for _ in range(3)]
    found = [text.encode() for text in found]
    found += [b"\xff\xfe ok \xe4\xbd", b"\xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf", b"caf\xe9 \xf0\x9f\x91", "你好".encode()[:-1]]
    for _ in range(20):
        chars = "".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xA0, 0x3000), rng.randrange(0x3000, 0xD7FF), rng.randrange(0x1F300, 0x1FAFF)])) for _ in range(rng.randrange(1, 12)))
        found.append(chars.encode())
    return found


def golden_case(tokenizer, data):
    text = data.decode(errors="replace")
    ids = tokenizer.encode(text).ids
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    try:
        case = {"text": data.decode()}
    except UnicodeDecodeError:
        case = {"bytes": data.hex()}
    case |= {"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)}
    if plain != ids:
        case["plain_ids"] = plain
    skipped = tokenizer.decode(ids, skip_special_tokens=True)
    if skipped != case["decoded"]:
        case["decoded_without_special"] = skipped
    return case


def fuzz_seed(tokenizer):
    """The tokenizer with a handful of tokens: the fuzzer mutates short files best."""
    seed = json.loads(tokenizer.to_str())
    model, keep = seed["model"], set("ab'le1Ġ▁ \n") | {"<0x61>", "<0xC3>"}
    keep |= {token["content"] for token in seed["added_tokens"]}
    model["vocab"] = {token: i for token, i in model["vocab"].items() if token in keep or set(token) <= set("abĠ▁ ")}
    tokens = model["vocab"]
    model["merges"] = [m for m in model["merges"] if m[0] in tokens and m[1] in tokens and m[0] + m[1] in tokens]
    return json.dumps(seed, ensure_ascii=False).encode() + b"\xff" + "a ab\u0301 <s>bab'll 1".encode()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("text", nargs="+")
    parser.add_argument("--vocab-size", type=int, default=420)
    parser.add_argument("--out", default="tests/golden/tokenizer")
    parser.add_argument("--tokenizers-only", action="store_true")
    parser.add_argument("--fuzz-corpus", action="store_true")
    options = parser.parse_args()
    texts = [open(path, encoding="utf-8").read() for path in options.text]
    for name, recipe in recipes().items():
        lines = [line for text in texts for line in text.splitlines()] + MULTILINGUAL.splitlines() * 5
        tokenizer = recipe.train(lines, options.vocab_size)
        if options.tokenizers_only:
            os.makedirs(os.path.join(options.out, name), exist_ok=True)
            tokenizer.save(os.path.join(options.out, name, "tokenizer.json"))
            continue
        if options.fuzz_corpus:
            with open(os.path.join(options.out, name), "wb") as file:
                file.write(fuzz_seed(tokenizer))
            continue
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        golden = {"tokenizer": json.loads(tokenizer.to_str())}
        golden["cases"] = [golden_case(tokenizer, data) for data in cases(texts, added)]
        with open(os.path.join(options.out, name + ".json"), "w") as file:
            json.dump(golden, file, ensure_ascii=True, separators=(",", ":"))
            file.write("\n")


main()
