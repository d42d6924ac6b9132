#!/usr/bin/env python3
"""Starts `swiftkv serve` on loopback, again and again, and checks what a server must keep under load.

    tools/check_server_load.py build/release/swiftkv smollm2-135m [invariance] [load] [faults] [connections] [idle]
        [--trace azure_llm_2023_conv.csv] [--seconds 600] [--clients 64] [-- serve's flags]

invariance  200 requests of mixed length get the same bytes alone (without kept prefixes), together in another order, with
            kept prefixes, and with one thread and two.
load        CLIENTS clients at once for SECONDS, lengths of the trace scaled to fit the context: no error, every answer as
            long as asked for, each streamed once, memory flat. Prints the figures. Memory grows until every block of the
            K/V cache was used once: give serve a small one (-- --kv-cache-memory 1000000000) to see it flat.
faults      kill -9 under load, then a start on the same port: the same answers as before; clients that vanish, and bodies
            that come by half, leave no block behind; SIGTERM lets 32 answers come to their ends.
connections 256 streams beside 1,000 idle connections, each whole; a prompt of 10 MB holds up no stream; of 5,000
            connections those beyond 4,096 get 503, and nothing is left behind.
idle        ready within 2 s of the start, five times; less than 1 % of a core while nothing is asked.
"""
import argparse
import csv
import http.client
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

CHECKS = ["invariance", "load", "faults", "connections", "idle"]


class Server:
    def __init__(self, binary, model, flags, port):
        self.port = port
        self.process = subprocess.Popen([binary, "serve", model, "--port", str(port), *flags],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begin = time.time()
        while not self.is_ready():
            assert self.process.poll() is None, "the server ended at its start"
            assert time.time() - begin < 60, "the server is not ready after 60 s"
            time.sleep(0.02)
        self.start_seconds = time.time() - begin

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def is_ready(self):
        try:
            return self.get("/ready")[0] == 200
        except OSError:
            return False

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        result = response.status, response.read().decode()
        connection.close()
        return result

    def post(self, body, status=200):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        assert response.status == status, f"{response.status}: {text[:300]}"
        return text

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def metric(self, name):
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.get("/metrics")[1].splitlines()
                   if line.startswith(f"swiftkv:{name}"))

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def in_parallel(jobs, clients):
    """Runs the jobs on `clients` threads; the results in the order of the jobs."""
    results, errors, numbers = [None] * len(jobs), [], iter(range(len(jobs)))
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None or errors:
                return
            try:
                results[number] = jobs[number]()
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def answer(server, body):
    """What must not depend on the company: texts, scores, ends."""
    return [(c["index"], c["text"], c["logprobs"], c["finish_reason"]) for c in json.loads(server.post(body))["choices"]]


def mixed_requests(count):
    rng = random.Random(5)
    shared = [rng.randrange(100, 40000) for _ in range(700)]
    requests = []
    for number in range(count):
        own = [rng.randrange(100, 40000) for _ in range(int(2 ** rng.uniform(0, 9.5)))]
        prompt = shared[: rng.choice([0, 0, 40, 300, 700])] + own
        requests.append({"prompt": prompt, "max_tokens": rng.choice([1, 4, 16, 48]), "seed": number, "logprobs": 2,
                         "temperature": rng.choice([0, 0, 1]), "n": rng.choice([1, 1, 1, 3])})
    return requests


def check_invariance(start):
    requests = mixed_requests(200)
    with start("--threads", "1", "--no-enable-prefix-caching") as server:
        alone = [answer(server, body) for body in requests]
    print("invariance: 200 requests alone, 1 thread, no kept prefixes", flush=True)
    order = random.Random(6).sample(range(len(requests)), len(requests))
    for threads in (1, 2):
        with start("--threads", str(threads)) as server:
            for run in ("new", "kept prefixes"):
                jobs = [lambda body=requests[i]: answer(server, body) for i in order]
                together = in_parallel(jobs, 32)
                wrong = [i for i, got in zip(order, together) if got != alone[i]]
                assert not wrong, f"{threads} threads, {run}: requests {wrong} differ"
                print(f"invariance: the same bytes together in another order, {threads} threads, {run}", flush=True)


def trace_lengths(path, context):
    with open(path, newline="") as rows:
        lengths = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(rows)]
    scale = min(1.0, (context - 8) / max(prompt + output for prompt, output in lengths))
    return [(max(1, int(prompt * scale)), max(1, int(output * scale))) for prompt, output in lengths]


def stream(server, body, expected_tokens):
    """One streamed answer: every token once, as many as asked for. Returns the times of its events."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()[:300]
    scored = 0
    usage = None
    times = []
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        times.append(time.time())
        event = json.loads(line[6:])
        assert "error" not in event, event
        for choice in event["choices"]:
            scored += len(choice["logprobs"]["tokens"]) if choice["logprobs"] else 0
        usage = event.get("usage") or usage
    connection.close()
    assert usage, "the stream ended before its answer"
    assert scored == usage["completion_tokens"] == expected_tokens, (scored, usage, expected_tokens)
    assert usage["prompt_tokens"] == len(body["prompt"])
    return times


def streamed(prompt, max_tokens):
    """A request whose answer `stream` can count."""
    return {"prompt": prompt, "max_tokens": max_tokens, "stream": True, "ignore_eos": True, "logprobs": 0,
            "stream_options": {"include_usage": True}}


def check_load(start, trace, seconds, clients):
    with start() as server:
        context = json.loads(server.get("/v1/models")[1])["data"][0]["max_model_len"]
        lengths = trace_lengths(trace, context)
        rng = random.Random(7)
        end = time.time() + seconds
        resident, totals, lock = [], [0, 0, 0], threading.Lock()

        def client():
            while time.time() < end:
                with lock:
                    prompt_length, output_length = rng.choice(lengths)
                    prompt = [rng.randrange(100, 40000) for _ in range(prompt_length)]
                stream(server, streamed(prompt, output_length), output_length)
                with lock:
                    totals[0] += 1
                    totals[1] += prompt_length
                    totals[2] += output_length

        def watch():
            while time.time() < end:
                resident.append(server.resident_mib())
                time.sleep(1)

        begin = time.time()
        watcher = threading.Thread(target=watch)
        watcher.start()
        in_parallel([client] * clients, clients)
        took = time.time() - begin
        watcher.join()
        quarter = max(1, len(resident) // 4)
        print(f"load: {clients} clients, {took:.0f} s, {totals[0]} answers of {totals[0]} whole; {totals[1]} prompt and "
              f"{totals[2]} output tokens, {(totals[1] + totals[2]) / took:.0f} tok/s; preemptions "
              f"{server.metric('num_preemptions_total'):.0f}; resident MiB at a quarter, half, the end: "
              f"{resident[quarter - 1]:.0f}, {resident[2 * quarter - 1]:.0f}, {resident[-1]:.0f}", flush=True)
        assert totals[1] + totals[2] == server.metric("prompt_tokens_total") + server.metric("generation_tokens_total")
        assert server.metric("kv_cache_usage_perc") == 0
        assert resident[-1] < resident[quarter - 1] * 1.05 + 16, "memory grows"


def check_faults(start):
    requests = mixed_requests(24)
    with start() as server:
        before = [answer(server, body) for body in requests]
        threads = [threading.Thread(target=lambda body=body: ignore_errors(lambda: server.post(body))) for body in requests]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        server.process.kill()
        server.process.wait()
        for thread in threads:
            thread.join()
    with start() as server:
        assert [answer(server, body) for body in requests] == before
        print(f"faults: after kill -9 under load the same answers; ready {server.start_seconds:.2f} s after the start", flush=True)
        for number in range(200):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            body = json.dumps({"prompt": [number + 1] * 500, "max_tokens": 400, "stream": number % 2 == 0, "ignore_eos": True})
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            if number % 3 == 0:
                connection.sock.settimeout(0.2)
                ignore_errors(lambda: connection.sock.recv(100))
            connection.close()
        send_half_bodies(server)
        assert_nothing_left(server)
        assert [answer(server, body) for body in requests] == before
        print("faults: 200 clients that vanish and 100 bodies that come by half leave nothing behind", flush=True)
    check_sigterm(start)


def send_half_bodies(server):
    """The rest never comes; half of the clients stay until all have come."""
    body = json.dumps({"prompt": "x" * 20000}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    stay = []
    for number in range(100):
        client = server.connect()
        client.sendall(head.encode() + body[:len(body) // 2])
        if number % 2:
            stay.append(client)
        else:
            client.close()
    server.post({"prompt": "beside them", "max_tokens": 4})
    for client in stay:
        client.close()


def check_sigterm(start):
    with start("--shutdown-timeout", "120") as server:
        def terminate():
            wait_until(lambda: server.metric("num_requests_running") == 32)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: server.get("/ready")[0] == 503)

        streams = [lambda number=number: stream(server, streamed([number + 1] * 50, 100), 100) for number in range(32)]
        in_parallel([*streams, terminate], 33)
        assert server.process.wait(60) == 0
    print("faults: SIGTERM with 32 requests running: /ready 503, all complete, exit code 0", flush=True)


def assert_nothing_left(server):
    wait_until(lambda: server.metric("num_requests_running") + server.metric("num_requests_waiting") == 0)
    assert server.metric("kv_cache_usage_perc") == 0


def check_connections(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    with start() as server:
        check_idle_connections(server)
        check_large_prompt(server)
        check_too_many_connections(server)
        assert_nothing_left(server)
        stream(server, streamed([5, 6, 7], 32), 32)
        print("connections: nothing is left behind, and the next answer is whole", flush=True)


def check_idle_connections(server):
    begin = time.time()
    idle = [server.connect() for _ in range(1000)]
    streams = [lambda number=number: stream(server, streamed([number + 1] * 20, 32), 32) for number in range(256)]
    in_parallel(streams, len(streams))
    took = time.time() - begin
    assert took > 70 or not any(hears(client) for client in idle), "closed before their 75 s were over"
    for client in idle:
        client.close()
    print(f"connections: 256 streams beside 1,000 idle connections, each whole, {took:.0f} s", flush=True)


def hears(client):
    """Whether the server has sent something, or the end, to a client that asked for nothing."""
    client.setblocking(False)
    try:
        client.recv(1, socket.MSG_PEEK)
        return True
    except BlockingIOError:
        return False


def check_large_prompt(server):
    """What a stream notices of 10 MB that are read and refused."""
    def largest_gap():
        times = stream(server, streamed([1, 2, 3], 400), 400)
        return max(after - before for before, after in zip(times, times[1:]))

    def ask():
        wait_until(lambda: server.metric("num_requests_running") == 1)
        begin = time.time()
        error = json.loads(server.post({"prompt": "word " * 2_000_000}, status=400))["error"]
        assert error["code"] == "context_length_exceeded" and error["param"] == "prompt", error
        return time.time() - begin

    alone = largest_gap()
    beside, took = in_parallel([largest_gap, ask], 2)
    print(f"connections: a prompt of 10 MB is refused after {took:.1f} s; the largest gap between two tokens of a stream is "
          f"{alone:.3f} s alone, {beside:.3f} s beside it", flush=True)
    assert beside < 1, "the stream stood still"


def check_too_many_connections(server):
    limit = 4096  # --max-connections' default
    clients = [server.connect() for _ in range(5000)]
    wait_until(lambda: sum(map(hears, clients)) == len(clients) - limit)
    refused = [client.recv(100) for client in clients if hears(client)]
    assert all(text.startswith(b"HTTP/1.1 503 ") for text in refused)
    for client in clients:
        client.close()
    wait_until(server.is_ready)
    print(f"connections: of {len(clients)} connections {limit} are held, {len(refused)} get 503", flush=True)


def wait_until(condition, seconds=60):
    begin = time.time()
    while not condition():
        assert time.time() - begin < seconds, f"not within {seconds} s"
        time.sleep(0.1)


def check_idle(start):
    times = []
    for _ in range(5):
        with start() as server:
            times.append(server.start_seconds)
    with start() as server:
        time.sleep(2)
        before = server.cpu_seconds()
        time.sleep(30)
        share = (server.cpu_seconds() - before) / 30
    print(f"idle: ready after {', '.join(f'{t:.2f}' for t in times)} s; {share:.2%} of a core while idle", flush=True)
    assert max(times) < 2 and share < 0.01


def ignore_errors(job):
    try:
        job()
    except (OSError, http.client.HTTPException, AssertionError):
        pass


def main():
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    own, flags = sys.argv[1:end], sys.argv[end + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []])
    parser.add_argument("--trace")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--port", type=int, default=20000 + os.getpid() % 10000)
    arguments = parser.parse_args(own)
    checks = arguments.checks or CHECKS

    def start(*more_flags):
        return Server(arguments.binary, arguments.model, [*flags, *more_flags], arguments.port)

    if "invariance" in checks:
        check_invariance(start)
    if "load" in checks:
        assert arguments.trace, "load needs --trace"
        check_load(start, arguments.trace, arguments.seconds, arguments.clients)
    if "faults" in checks:
        check_faults(start)
    if "connections" in checks:
        check_connections(start)
    if "idle" in checks:
        check_idle(start)


if __name__ == "__main__":
    main()
