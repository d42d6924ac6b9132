#!/usr/bin/env python3
"""Lets OpenVINO GenAI's ContinuousBatchingPipeline answer exactly the requests that `swiftkv bench serve` sends to a server.

    pip install openvino-genai numpy
    python3 tools/measure_openvino_batching.py MODEL.gguf --concurrency 16 --input-len 2000 --output-len 32 --num-prompts 16

Beside `swiftkv bench serve --prompt-format ids --max-concurrency 16 --random-input-len 2000 ...` with the same seed. The
requests are taken from `bench serve` itself, which is let loose on a socket that records them and answers nothing. The
pipeline runs in this process, without HTTP; as many requests as --concurrency are under way. Prints one JSON object, its
fields named and computed as bench serve's.
"""
import argparse
import http.server
import json
import subprocess
import threading
import time

import numpy as np
import openvino as ov
import openvino_genai as genai


def record_requests(options):
    """The prompts' token ids, in the order of their sending."""
    bodies = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # the name is http.server's
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    subprocess.run([options.swiftkv, "bench", "serve", "--port", str(server.server_port), "--model", "recorded", "--num-warmups",
                    "0", "--max-concurrency", "1", "--prompt-format", "ids", "--num-prompts", str(options.num_prompts),
                    "--random-input-len", str(options.input_len), "--random-output-len", str(options.output_len), "--seed",
                    str(options.seed), "-q"], capture_output=True, check=False)  # it fails: nothing was answered
    server.shutdown()
    if len(bodies) != options.num_prompts:
        raise SystemExit(f"{options.swiftkv} bench serve sent {len(bodies)} requests instead of {options.num_prompts}")
    return [body["prompt"] for body in bodies]


def make_pipeline(options):
    config = genai.SchedulerConfig()
    config.max_num_seqs = options.concurrency
    config.max_num_batched_tokens = options.max_num_batched_tokens
    config.cache_size = options.cache_gib
    config.enable_prefix_caching = False
    config.dynamic_split_fuse = True
    return genai.ContinuousBatchingPipeline(options.model, config, "CPU")


def run(pipeline, prompts, options):
    """Begin, first token and end of each request in seconds, and the duration of all."""
    generation = genai.GenerationConfig()
    generation.max_new_tokens, generation.ignore_eos, generation.do_sample = options.output_len, True, False
    waiting = list(enumerate(prompts))[::-1]
    running, times = {}, {}
    start = time.perf_counter()
    while waiting or running:
        while waiting and len(running) < options.concurrency:
            number, ids = waiting.pop()
            tensor = ov.Tensor(np.array([ids], dtype=np.int64))
            times[number] = [time.perf_counter() - start, None, None, 0]
            running[number] = pipeline.add_request(number, tensor, generation)
        pipeline.step()
        now = time.perf_counter() - start
        for number, handle in list(running.items()):
            while handle.can_read():
                times[number][3] += sum(len(output.generated_ids) for output in handle.read().values())
                times[number][1] = times[number][1] or now
            if handle.get_status() != genai.GenerationStatus.RUNNING:
                times[number][2] = now
                del running[number]
    return times, time.perf_counter() - start


def report(times, duration, options):
    ttft = np.array([first - begin for begin, first, _, _ in times.values()]) * 1e3
    tpot = np.array([(end - first) / (tokens - 1) for _, first, end, tokens in times.values()]) * 1e3
    tokens = sum(entry[3] for entry in times.values())
    result = {"peer": "openvino-genai " + genai.__version__, "model": options.model, "completed": len(times), "duration": duration,
              "max_concurrency": options.concurrency, "total_input_tokens": options.input_len * len(times),
              "total_output_tokens": tokens, "output_throughput": tokens / duration,
              "total_token_throughput": (tokens + options.input_len * len(times)) / duration}
    for name, values in (("ttft", ttft), ("tpot", tpot)):
        result[f"mean_{name}_ms"] = values.mean()
        result[f"p99_{name}_ms"] = np.percentile(values, 99)
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="GGUF file, or folder of an OpenVINO model")
    parser.add_argument("--swiftkv", default="build/release/swiftkv")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--num-prompts", type=int, default=16)
    parser.add_argument("--input-len", type=int, default=2000)
    parser.add_argument("--output-len", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-num-batched-tokens", type=int, default=2048)
    parser.add_argument("--cache-gib", type=int, default=4)
    options = parser.parse_args()
    prompts = record_requests(options)
    pipeline = make_pipeline(options)
    warm_up = argparse.Namespace(**{**vars(options), "output_len": 2})
    run(pipeline, [prompts[0][::-1]], warm_up)
    report(*run(pipeline, prompts, options), options)


if __name__ == "__main__":
    main()
