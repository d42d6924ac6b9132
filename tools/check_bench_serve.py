#!/usr/bin/env python3
"""Compares `swiftkv bench serve` with GuideLLM: both send the same requests to the same server, in turns.

    pip install guidellm==0.8.1
    swiftkv serve smollm2-135m --port 8000 --no-enable-prefix-caching &      # or llama-server, vLLM, ...
    python3 tools/check_bench_serve.py http://127.0.0.1:8000 --swiftkv build/release/swiftkv --tokenizer HF_FOLDER

The server must not keep prefixes between requests (llama-server: --cache-ram 0), for each prompt comes once a round.
Prompts are random words, written to a file that both read. Prints each client's mean and sample standard deviation over
the rounds; figures agree when their difference is of the order of the deviations.
"""
import argparse
import json
import pathlib
import random
import statistics
import subprocess
import tempfile

WORDS = ("time year people way day man thing woman life child world school state family student group country problem "
         "hand part place case week company system program question work government number night point home water room "
         "mother area money story fact month lot right study book eye job word business issue side kind head house").split()
METRICS = ("mean TTFT, ms", "median TTFT, ms", "mean ITL, ms", "mean E2EL, ms", "output tok/s")


def write_prompts(path, requests, words, output_tokens, seed):
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(requests):
            row = {"prompt": " ".join(rng.choices(WORDS, k=words)), "output_tokens": output_tokens,
                   "output_tokens_count": output_tokens}
            file.write(json.dumps(row) + "\n")


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def ask_swiftkv(options, prompts, _):
    result = json.loads(run([options.swiftkv, "bench", "serve", "--base-url", options.url, "--dataset-name", "custom",
                             "--dataset-path", prompts, "--num-prompts", str(options.requests), "--max-concurrency",
                             str(options.concurrency), "--num-warmups", "0", "--json", "-q"]))
    if result["failed"] > 0:
        raise SystemExit(f"bench serve: {result['failures']}")
    return [result[name] for name in ("mean_ttft_ms", "median_ttft_ms", "mean_itl_ms", "mean_e2el_ms",
                                      "output_throughput")], result["completed"], result["total_output_tokens"]


def ask_guidellm(options, prompts, folder):
    path = f"{folder}/guidellm.json"
    run([options.guidellm, "run", "--backend", f"kind=openai_http,target={options.url},request_format=/v1/completions",
         "--profile", f"kind=concurrent,streams={options.concurrency}", "--constraint",
         f"kind=max_requests,count={options.requests}", "--tokenizer",
         f"kind=huggingface_auto,model={options.tokenizer}", "--data", f"kind=json_file,path={prompts}", "--output",
         f"kind=json,path={path}", "--disable-console"])
    metrics = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["benchmarks"][0]["metrics"]
    of = lambda name: metrics[name]["successful"]
    return [of("time_to_first_token_ms")["mean"], of("time_to_first_token_ms")["median"],
            of("inter_token_latency_ms")["mean"], 1000 * of("request_latency")["mean"],
            of("output_tokens_per_second")["mean"]], of("request_latency")["count"], round(
                of("output_token_count")["total_sum"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--swiftkv", default="swiftkv")
    parser.add_argument("--guidellm", default="guidellm")
    parser.add_argument("--tokenizer", required=True, help="Hugging Face folder, for GuideLLM")
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    clients = {"bench serve": ask_swiftkv, "GuideLLM": ask_guidellm}
    figures = {name: [] for name in clients}
    with tempfile.TemporaryDirectory() as folder:
        prompts = f"{folder}/prompts.jsonl"
        write_prompts(prompts, options.requests, options.words, options.output_tokens, seed=1)
        ask_swiftkv(options, prompts, folder)  # warms the server up
        for _ in range(options.rounds):
            for name, ask in clients.items():
                values, completed, tokens = ask(options, prompts, folder)
                print(f"{name}: {completed} requests, {tokens} tokens: "
                      + ", ".join(f"{value:.2f}" for value in values), flush=True)
                figures[name].append(values)
    print("\n| client | " + " | ".join(METRICS) + " |\n| --- |" + " ---: |" * len(METRICS))
    for name, rounds in figures.items():
        cells = [f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"
                 for values in zip(*rounds)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
