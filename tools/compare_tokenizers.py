#!/usr/bin/env python3
"""Compares our tokenizers with Hugging Face `tokenizers`: ids and decoded text, and the speed of both in
processor time.

usage: tools/compare_tokenizers.py build/release/tokenizer_ids MODEL [--text FILE...] [--random N] [--seed S]
MODEL is a folder, a tokenizer.json, or a .gguf file (then the other side is built with `tokenizers` from the same
vocabulary, as the model's own tokenizer.json would say; with --exported it is what transformers makes of the files
that we write for that vocabulary). Needs tokenizers==0.23.3, gguf==0.19.0, and transformers for --exported and for a
folder with tokenizer_config.json. Set RAYON_NUM_THREADS=1 for the timing.
"""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


def read_gguf_vocabulary(path):
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    prefix = "tokenizer.ggml."
    return {name[len(prefix) :]: field.contents() for name, field in fields.items() if name.startswith(prefix)}


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def gguf_pre_tokenizer(name):
    """What the tokenizer.json of the models with this pre-tokenizer name holds."""
    steps = {
        "gpt-2": [split(GPT2)],
        "smollm": [pre_tokenizers.Digits(individual_digits=True), split(GPT2)],
        "starcoder": [pre_tokenizers.Digits(individual_digits=True), split(GPT2)],
        "refact": [pre_tokenizers.Digits(individual_digits=True), split(GPT2)],
        "command-r": [pre_tokenizers.Digits(individual_digits=True), split(GPT2)],
        "llama-bpe": [split(LLAMA3)],
        "qwen2": [split(QWEN2)],
        "default": [split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT2), split(r"\p{N}+"), split("[0-9][0-9][0-9]")],
    }[name]
    return pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def merges_by_score(tokens, scores, types):
    ids = {t: i for i, t in enumerate(tokens) if types[i] in (1, 4)}
    found = []
    for token, i in ids.items():
        for cut in range(1, len(token)):
            if token[:cut] in ids and token[cut:] in ids:
                found.append((-scores[i], i, cut, (token[:cut], token[cut:])))
    return [pair for _, _, _, pair in sorted(found)]


def tokenizer_from_gguf(vocabulary):
    tokens = vocabulary["tokens"]
    vocab = {token: index for index, token in enumerate(tokens)}
    types = vocabulary.get("token_type", [1] * len(tokens))
    if vocabulary["model"] == "gpt2":
        pre = vocabulary.get("pre", "default")
        merges = [(m[: m.index(" ", 1)], m[m.index(" ", 1) + 1 :]) for m in vocabulary["merges"]]
        tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=pre == "llama-bpe"))
        tokenizer.pre_tokenizer = gguf_pre_tokenizer(pre)
        tokenizer.decoder = decoders.ByteLevel()
        if pre == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        add_bos = vocabulary.get("add_bos_token", pre == "llama-bpe")
    else:
        unknown = tokens[vocabulary["unknown_token_id"]] if "unknown_token_id" in vocabulary else None
        merges = merges_by_score(tokens, vocabulary["scores"], types)
        tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        add_bos = vocabulary.get("add_bos_token", True)
    for token, kind in zip(tokens, types):
        if kind in (2, 3):
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif kind == 4:
            tokenizer.add_tokens([AddedToken(token, special=False, normalized=False)])
    if add_bos and "bos_token_id" in vocabulary:
        bos = tokens[vocabulary["bos_token_id"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary["bos_token_id"])]
        )
    return tokenizer


def load(model, scratch, exporter=None):
    """The oracle, and the path for our side."""
    if exporter:
        from transformers import AutoTokenizer

        _, path = load(model, scratch)
        subprocess.run([exporter, path, "--export", scratch], check=True)
        return AutoTokenizer.from_pretrained(scratch).backend_tokenizer, path
    if model.endswith(".gguf"):
        vocabulary = read_gguf_vocabulary(model)
        vocabulary.pop("precompiled_charsmap", None)
        path = os.path.join(scratch, "vocabulary.gguf.json")
        with open(path, "w") as file:
            json.dump(vocabulary, file)
        return tokenizer_from_gguf(vocabulary), path
    if os.path.isdir(model):
        if os.path.exists(os.path.join(model, "tokenizer_config.json")):
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(model).backend_tokenizer, model
        return Tokenizer.from_file(os.path.join(model, "tokenizer.json")), model
    return Tokenizer.from_file(model), model


def texts_of(path):
    """Every line, and in JSON lines every string value as well."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\n").encode()
            if path.endswith(".jsonl"):
                yield from (s.encode() for s in strings_in(json.loads(line)))


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_in(item)


def random_texts(count, seed, specials):
    """Random bytes and characters of every kind, with what tokenizers stumble over mixed in."""
    rng = random.Random(seed)
    snippets = ["'s", "'S", "'ll", "'Re", "'\u017f", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u180e", "\u0085"]
    snippets += ["123", "4567", "½", "٣", "²", "…", "—", "é", "e\u0301", "ﬁ", "İ", "한국", "ｱ", "\u1100\u1161\u11a8", "a", "I'm"]
    snippets += ["👩\u200d👩\u200d👧", "\u200d", "\ufeff", "\0", "▁", "Ġ", "<0x41>", "the", " Hello", "world", "foo_bar", "\u0323\u0307"]
    snippets += list(specials)
    ranges = [(0, 0x7F), (0, 0x7F), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x900, 0xDFF), (0x2000, 0x2BFF)]
    ranges += [(0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0, 0x10FFFF)]
    for _ in range(count):
        out = b""
        for _ in range(rng.randrange(1, 12)):
            kind = rng.random()
            if kind < 0.35:
                out += rng.choice(snippets).encode()
            elif kind < 0.9:
                low, high = rng.choice(ranges)
                for _ in range(rng.randrange(1, 6)):
                    c = rng.randint(low, high)
                    out += chr(c).encode("utf-8", "surrogatepass")
            else:
                out += rng.randbytes(rng.randrange(1, 5))
        yield out


def run_ours(binary, path, texts, special):
    stream = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    arguments = [binary, path] + ([] if special else ["--no-special"])
    done = subprocess.run(arguments, input=stream, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.stderr.decode())
    at, results = 0, []
    for _ in texts:
        (count,) = struct.unpack_from("<I", done.stdout, at)
        ids = list(struct.unpack_from(f"<{count}i", done.stdout, at + 4))
        at += 4 + 4 * count
        (size,) = struct.unpack_from("<I", done.stdout, at)
        results.append((ids, done.stdout[at + 4 : at + 4 + size]))
        at += 4 + size
    times = dict(part.split("=") for part in done.stderr.decode().split())
    return results, float(times["encode_s"]), float(times["decode_s"])


def compare(name, oracle, binary, path, texts, special):
    ours, encode_s, decode_s = run_ours(binary, path, texts, special)
    valid = [text.decode(errors="replace") for text in texts]
    start = time.process_time()
    theirs = [oracle.encode(text, add_special_tokens=special).ids for text in valid]
    oracle_encode_s = time.process_time() - start
    start = time.process_time()
    decoded = [oracle.decode(ids, skip_special_tokens=not special) for ids in theirs]
    oracle_decode_s = time.process_time() - start
    wrong = [i for i in range(len(texts)) if ours[i] != (theirs[i], decoded[i].encode())]
    megabytes = sum(map(len, texts)) / 1e6
    print(
        f"{name}: {len(texts)} texts, {megabytes:.1f} MB, {len(wrong)} differ; "
        f"encode {megabytes / encode_s:.1f} MB/s against {megabytes / oracle_encode_s:.1f}, "
        f"decode {megabytes / decode_s:.1f} against {megabytes / oracle_decode_s:.1f}",
        flush=True,
    )
    for i in wrong[:5]:
        print(f"  text    {texts[i][:200]!r}\n  ours    {ours[i][0][:40]} {ours[i][1][:200]!r}")
        print(f"  theirs  {theirs[i][:40]} {decoded[i].encode()[:200]!r}")
    return len(wrong)


def compare_expected(binary, path, prefix):
    """llama.cpp's vocabulary tests: PREFIX.inp holds texts, PREFIX.out the ids without BOS, a line each."""
    with open(prefix + ".inp", encoding="utf-8", newline="") as file:
        texts = [text.encode() for text in file.read().split("\n__ggml_vocab_test__\n")]
    with open(prefix + ".out") as file:
        expected = [[int(i) for i in line.split()] for line in file]
    ours, _, _ = run_ours(binary, path, texts, False)
    wrong = [i for i, ids in enumerate(expected) if ours[i][0] != ids]
    print(f"{os.path.basename(prefix)}: {len(expected)} expected results, {len(wrong)} differ")
    for i in wrong[:5]:
        print(f"  text    {texts[i]!r}\n  ours    {ours[i][0]}\n  theirs  {expected[i]}")
    return len(wrong)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--text", nargs="*", default=[])
    parser.add_argument("--whole", action="store_true", help="each file as one text")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--expected", metavar="PREFIX", help="PREFIX.inp and PREFIX.out of llama.cpp")
    parser.add_argument("--exported", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        oracle, path = load(options.model, scratch, options.binary if options.exported else None)
        specials = [token.content for token in list(oracle.get_added_tokens_decoder().values())[:30]]
        for file in options.text:
            texts = [open(file, "rb").read()] if options.whole else list(texts_of(file))
            wrong += compare(os.path.basename(file), oracle, options.binary, path, texts, True)
        if options.expected:
            wrong += compare_expected(options.binary, path, options.expected)
        if options.random:
            texts = list(random_texts(options.random, options.seed, specials))
            wrong += compare("random", oracle, options.binary, path, texts, True)
            wrong += compare("random, no special", oracle, options.binary, path, texts, False)
    sys.exit(1 if wrong else 0)


main()
