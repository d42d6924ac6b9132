#!/usr/bin/env python3
"""Checks a running server with the clients that people use: the openai package, lm-eval's local-completions, and
schemathesis on /openapi.json.

    build/release/swiftkv serve smollm2-135m --dtype f32 --port 8123 &
    tools/check_server_clients.py --url http://127.0.0.1:8123 [openai] [lm-eval] [schemathesis]

For schemathesis add --max-model-len 256: it asks for as many tokens as the description allows, and waits 120 s.

Needs, each for its own check: openai; lm-eval, transformers and torch; schemathesis (the command in PATH). lm-eval's
log-likelihoods of texts from --data are compared with transformers on the GGUF file that --gguf names: the difference of
a text's log-likelihood by token must not exceed --tolerance. Where that is above 1e-3, for BF16, transformers' own BF16 is shown
beside it.
"""
import argparse
import hashlib
import importlib.util
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import urllib.request

TEXTS = [
    ("The capital of France is", " Paris, which lies on the river Seine."),
    ("def add(a, b):\n    return", " a + b\n"),
    ("Water boils at 100 degrees", " Celsius at sea level, and at less on a mountain."),
    ("Grüße aus", " München: das Wetter ist schön."),
]


def check_openai(url):
    import openai

    client = openai.OpenAI(base_url=url + "/v1", api_key="none")
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model  # a slash in the name comes as %2F
    messages = [{"role": "user", "content": "Say hello in one short sentence."}]

    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=24, logprobs=True,
                                            top_logprobs=3)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    scores = answer.choices[0].logprobs.content
    assert len(scores) == answer.usage.completion_tokens and len(scores[0].top_logprobs) == 3
    assert scores[0].logprob == scores[0].top_logprobs[0].logprob  # greedy
    visible = scores[:-1] if answer.choices[0].finish_reason == "stop" else scores
    assert b"".join(bytes(s.bytes) for s in visible).decode(errors="replace") == answer.choices[0].message.content

    stream = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=24, stream=True,
                                            stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens

    several = client.chat.completions.create(model=model, messages=messages, n=3, seed=5, max_tokens=8, temperature=1)
    again = client.chat.completions.create(model=model, messages=messages, n=3, seed=5, max_tokens=8, temperature=1)
    assert [c.message.content for c in several.choices] == [c.message.content for c in again.choices]

    stopped = client.completions.create(model=model, prompt="1, 2, 3, 4,", stop=["7"], temperature=0, max_tokens=32)
    assert "7" not in stopped.choices[0].text and stopped.choices[0].finish_reason == "stop", stopped

    scored = client.completions.create(model=model, prompt="The sky is blue", echo=True, logprobs=2, max_tokens=0)
    assert scored.choices[0].text == "The sky is blue"
    assert scored.choices[0].logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in scored.choices[0].logprobs.token_logprobs[1:])

    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    with_tools = client.chat.completions.create(model=model, messages=messages, tools=tools, tool_choice="auto",
                                                max_tokens=4)
    assert with_tools.choices[0].message.content is not None
    tools[0]["function"]["parameters"] = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}},
                                          "required": ["city"]}
    for choice, finish in (("required", "tool_calls"), ({"type": "function", "function": {"name": "weather"}}, "stop")):
        forced = client.chat.completions.create(model=model, messages=messages, tools=tools, tool_choice=choice,
                                                parallel_tool_calls=False, temperature=0, max_tokens=64)
        call, = forced.choices[0].message.tool_calls
        assert call.function.name == "weather" and json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
        assert forced.choices[0].finish_reason == finish
        with client.chat.completions.stream(model=model, messages=messages, tools=tools, tool_choice=choice,
                                            parallel_tool_calls=False, temperature=0, max_tokens=64) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.tool_calls[0].function.arguments == call.function.arguments
        # The call goes back as it came, without content, and its result with it.
        turn = [*messages, forced.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}]
        second = client.chat.completions.create(model=model, messages=turn, tools=tools, max_tokens=8)
        assert second.usage.prompt_tokens > forced.usage.prompt_tokens, second

    as_json = client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": {
            "type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"],
            "additionalProperties": False}}})
    assert json.loads(as_json.choices[0].message.content)["sure"] in (True, False)

    # A schema that says nothing but "an object" has no end of its own: a brace that is always likely gives it one.
    brace, = post(url + "/tokenize", {"prompt": "}", "add_special_tokens": False})["tokens"]
    for bias, finish in (({}, ("stop", "length")), ({str(brace): 100}, ("stop",))):
        any_object = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=64,
                                                    logit_bias=bias, response_format={"type": "json_object"}).choices[0]
        assert any_object.message.content.startswith("{") and any_object.finish_reason in finish, any_object
        if any_object.finish_reason == "stop":
            assert isinstance(json.loads(any_object.message.content), dict), any_object

    for wrong, error in ((dict(temperature=-1), openai.BadRequestError), (dict(model="other"), openai.NotFoundError),
                         (dict(response_format={"type": "xml"}), openai.BadRequestError)):
        try:
            client.chat.completions.create(**{"model": model, "messages": messages, **wrong})
            raise AssertionError(f"{wrong} was taken")
        except error as caught:
            assert caught.body["message"]
    print("openai: ok")


def sample_texts(data, count):
    """`count` pairs of a context and its continuation: prose, documents with code, chats, choices of evaluations."""
    rng = random.Random(11)
    documents = [path.read_text() for path in sorted(data.glob("text/standardebooks/*.txt"))]
    rows = {path.stem: [json.loads(line) for line in path.open()]
            for path in [*sorted(data.glob("text/*/*.jsonl")), data / "eval/hellaswag/hellaswag_val.jsonl"]}
    documents += [row["text"] for name in ("peps", "rust_book", "rust_rfcs") for row in rng.sample(rows[name], 40)]
    chats = [row["messages"] for name in ("p3_open", "sgd_chat") for row in rng.sample(rows[name], count)]
    pairs = list(TEXTS)
    while len(pairs) < count:
        kind = len(pairs) % 4
        if kind < 2:
            text = rng.choice(documents)
            words = text[(begin := rng.randrange(max(1, len(text) - 2000))):begin + rng.randrange(200, 2000)].split(" ")
            middle = rng.randrange(1, max(2, len(words)))
            pairs.append((" ".join(words[:middle]), " " + " ".join(words[middle:])))
        elif kind == 2:
            chat = rng.choice(chats)
            pairs.append((chat[0]["content"][-3000:] + "\n", chat[1]["content"]))
        else:
            row = rng.choice(rows["hellaswag_val"])
            pairs.append((row["ctx"], " " + rng.choice(row["endings"])))
    return [(context, continuation) for context, continuation in pairs if context.strip() and continuation.strip()]


class Reference:
    """transformers' log-probability of each token of the continuations, in FP32, in BF16, and in FP32 with weights
    that were rounded to BF16; `file` keeps them."""

    def __init__(self, gguf, file):
        from transformers import AutoTokenizer
        self.path, self.file = pathlib.Path(gguf), file
        self.tokenizer = AutoTokenizer.from_pretrained(str(self.path.parent), gguf_file=self.path.name)
        self.known = json.loads(file.read_text()) if file and file.exists() else {}

    def scores(self, dtype, tokens):
        import torch
        from transformers import AutoModelForCausalLM
        keys = [f"{self.path} {dtype} " + hashlib.sha256(json.dumps(pair).encode()).hexdigest() for pair in tokens]
        if any(key not in self.known for key in keys):
            model = AutoModelForCausalLM.from_pretrained(str(self.path.parent), gguf_file=self.path.name,
                                                         dtype=getattr(torch, dtype.split()[0])).eval()
            if dtype == "bfloat16 weights":
                model = model.float()
        try:
            for key, (context, continuation) in zip(keys, tokens):
                if key in self.known:
                    continue
                ids = torch.tensor([context + continuation])
                with torch.no_grad():
                    rows = model(ids).logits[0, len(context) - 1:-1].double().log_softmax(-1)
                self.known[key] = rows.gather(1, ids[0, len(context):, None])[:, 0].tolist()
        finally:
            if self.file:
                self.file.write_text(json.dumps(self.known))
        return [self.known[key] for key in keys]


def token_scores(url, tokens):
    """The server's log-probability of each token of the continuations."""
    results = []
    for context, continuation in tokens:
        answer = post(url + "/v1/completions", {"prompt": context + continuation, "echo": True, "logprobs": 0,
                                                "max_tokens": 0})
        results.append(answer["choices"][0]["logprobs"]["token_logprobs"][len(context):])
    return results


def difference(a, b):
    """(of the sums of each text, of each token): by token, mean and largest."""
    texts = [abs(sum(x) - sum(y)) / len(x) for x, y in zip(a, b)]
    tokens = [abs(v - w) for x, y in zip(a, b) for v, w in zip(x, y)]
    return texts, tokens


def describe(name, a, b):
    texts, tokens = difference(a, b)
    above = sum(value > 1e-2 for value in texts)
    print(f"  {name}: a text's log-likelihood, by token: mean {statistics.mean(texts):.2e}, largest {max(texts):.2e}, "
          f"{above} of {len(texts)} above 1e-2; single tokens: mean {statistics.mean(tokens):.2e}, largest "
          f"{max(tokens):.2e}", flush=True)
    return max(texts)


def check_lm_eval(flags):
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    pairs = sample_texts(flags.data, flags.texts) if flags.data else TEXTS
    reference = Reference(flags.gguf, flags.reference)
    with tempfile.TemporaryDirectory() as folder:
        reference.tokenizer.save_pretrained(folder)
        model = LocalCompletionsAPI(base_url=flags.url + "/v1/completions", model=served_model(flags.url),
                                    tokenizer=folder, tokenizer_backend="huggingface", batch_size=4)
        tokens = [model._encode_pair(*pair) for pair in pairs]
        sums = model.loglikelihood([Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)])
    ours = token_scores(flags.url, tokens)
    for (total, _), scores in zip(sums, ours):
        assert abs(total - sum(scores)) < 1e-4 * len(scores), "lm-eval sums other scores than the server gives"
    print(f"lm-eval: {len(tokens)} texts, {sum(len(c) for _, c in tokens)} scored tokens")
    exact = reference.scores("float32", tokens)
    largest = describe("the server and transformers FP32", ours, exact)
    if flags.tolerance > 1e-3:  # a server in BF16
        rounded, weights = reference.scores("bfloat16", tokens), reference.scores("bfloat16 weights", tokens)
        describe("the server and transformers BF16", ours, rounded)
        describe("the server and transformers FP32 with weights rounded to BF16", ours, weights)
        describe("transformers FP32 with weights rounded to BF16, and FP32", weights, exact)
        describe("transformers BF16 and FP32", rounded, exact)
    assert largest <= flags.tolerance, f"log-likelihoods differ by {largest:.2e} a token, more than {flags.tolerance}"
    print("lm-eval: ok")


def check_lm_eval_chat(url):
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalChatCompletion

    model = LocalChatCompletion(base_url=url + "/v1/chat/completions", model=served_model(url), num_concurrent=1)
    messages = [{"role": "user", "content": "Name three colours."}]
    chat = model.apply_chat_template(messages)
    text, = model.generate_until([Instance("generate_until", {}, (chat, {"until": ["\n\n"], "max_gen_toks": 24}), 0)])
    same = post(url + "/v1/chat/completions", {"messages": messages, "stop": ["\n\n"], "max_tokens": 24, "temperature": 0})
    assert text and text == same["choices"][0]["message"]["content"], (text, same)
    print("lm-eval, local-chat-completions: ok")


def check_vllm_bench(url, file):
    """The functions with which `vllm bench serve` asks, on prompts as text, as token ids and as a conversation."""
    import asyncio

    import aiohttp
    spec = importlib.util.spec_from_file_location("vllm_bench", file)
    bench = importlib.util.module_from_spec(spec)
    sys.modules["vllm_bench"] = bench
    spec.loader.exec_module(bench)

    async def ask(function, path, prompt):
        wanted = bench.RequestFuncInput(prompt=prompt, api_url=url + path, prompt_len=4, output_len=20,
                                        model=served_model(url), ignore_eos=True, request_id="vllm-bench-1")
        async with aiohttp.ClientSession() as session:
            return await function(wanted, session)

    for function, path, prompt in (
            (bench.async_request_openai_completions, "/v1/completions", "Once upon a time"),
            (bench.async_request_openai_completions, "/v1/completions", [1, 2, 3, 4]),
            (bench.async_request_openai_chat_completions, "/v1/chat/completions", "Hello")):
        answer = asyncio.run(ask(function, path, prompt))
        assert answer.success, answer.error
        assert answer.output_tokens == 20 and answer.generated_text, answer
        assert 0 < answer.ttft <= answer.latency and 1 <= len(answer.itl) <= 19, answer
    print("vllm bench serve's request functions: ok")


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


def served_model(url):
    return json.load(urllib.request.urlopen(url + "/v1/models"))["data"][0]["id"]


def check_schemathesis(flags):
    """Every phase: values at the edges, random ones, sequences of calls. Besides 5xx, answers must be as described. That
    the server refuses all that its description forbids, and nothing else, is not asked: unknown models and ids that are
    no tokens can't be told by a schema. With two workers ast.parse of CPython 3.11 ends with a SystemError now and then."""
    command = ["schemathesis", "run", flags.url + "/openapi.json", "--url", flags.url, "--checks", "all", "--exclude-checks",
               "positive_data_acceptance,negative_data_rejection", "--max-time", str(flags.seconds), "--request-timeout", "120",
               "--workers", "1", "--continue-on-failure", "--seed", str(flags.seed)]
    if flags.examples:
        command += ["--max-examples", str(flags.examples)]
    assert subprocess.run(command).returncode == 0, "schemathesis found a failure"
    print("schemathesis: ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", default=["openai", "lm-eval", "schemathesis"],
                        help="openai, lm-eval, schemathesis; default: all")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--gguf", help="the served model's file, for lm-eval's reference")
    parser.add_argument("--data", type=pathlib.Path, help="folder with text/ and eval/; without it lm-eval scores four texts")
    parser.add_argument("--texts", type=int, default=300, help="texts to take from --data")
    parser.add_argument("--reference", type=pathlib.Path, help="file that keeps transformers' scores for the next run")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="nats a token: 1e-3 for f32, 1e-2 for bf16")
    parser.add_argument("--vllm-bench", type=pathlib.Path,
                        help="vLLM's benchmarks/lib/endpoint_request_func.py: asks with its functions, too")
    parser.add_argument("--seconds", type=int, default=300, help="schemathesis' time: it goes on until it is over")
    parser.add_argument("--examples", type=int, help="schemathesis' examples an operation; default: its own")
    parser.add_argument("--seed", type=int, default=1, help="schemathesis' seed")
    flags = parser.parse_args()
    if "openai" in flags.checks:
        check_openai(flags.url)
    if "lm-eval" in flags.checks:
        check_lm_eval_chat(flags.url)
        check_lm_eval(flags)
    if flags.vllm_bench:
        check_vllm_bench(flags.url, flags.vllm_bench)
    if "schemathesis" in flags.checks:
        check_schemathesis(flags)


if __name__ == "__main__":
    sys.exit(main())
