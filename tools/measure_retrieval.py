#!/usr/bin/env python3
"""How many facts hidden in long passages a served model finds: asks a running server, counts answers that hold the fact.

    tools/measure_retrieval.py TEXT [--url http://127.0.0.1:8000] [--count 200]

TEXT is a book that was not trained on (tests of the shipped adapters: Frankenstein). The passages are 2,000 to 5,000
characters of it with 5 to 10 made-up facts between its sentences, one question each, as in make_retrieval_data.py; greedy.
"""
import argparse
import concurrent.futures
import json
import math
import pathlib
import random
import urllib.request

import make_retrieval_data


def question(draw, sentences):
    document, facts = make_retrieval_data.hide_facts(draw, sentences, draw.randrange(2000, 5000))
    return " ".join(document) + "\n\nRead the text and answer the question. " + facts[0][1], facts[0][2]


def ask(url, text):
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 40}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--count", type=int, default=200)
    flags = parser.parse_args()
    sentences = make_retrieval_data.sentences_of(flags.text.read_text(encoding="utf-8"))
    draw = random.Random(2)
    questions = [question(draw, sentences) for _ in range(flags.count)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda item: ask(flags.url, item[0]), questions))
    found = sum(fact.lower() in answer.lower() for (_, fact), answer in zip(questions, answers))
    share = found / flags.count
    print(f"{found} of {flags.count} facts found: {100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / flags.count):.1f} %")


if __name__ == "__main__":
    main()
