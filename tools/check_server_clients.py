#!/usr/bin/env python3
"""Checks a running server with the clients that people use: the openai package, lm-eval's local-completions, and
schemathesis on /openapi.json.

    build/release/swiftkv serve smollm2-135m --dtype f32 --port 8123 &
    tools/check_server_clients.py --url http://127.0.0.1:8123 [openai] [lm-eval] [schemathesis]

For schemathesis add --max-model-len 256: it asks for as many tokens as the description allows, and waits 120 s.

Needs, each for its own check: openai; lm-eval, transformers and torch; schemathesis (the command in PATH). lm-eval's
log-likelihoods are compared with transformers on the GGUF file that --gguf names, to --tolerance a token.
"""
import argparse
import json
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

    as_json = client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": {
            "type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"],
            "additionalProperties": False}}})
    assert json.loads(as_json.choices[0].message.content)["sure"] in (True, False)

    for wrong, error in ((dict(temperature=-1), openai.BadRequestError), (dict(model="other"), openai.NotFoundError),
                         (dict(response_format={"type": "xml"}), openai.BadRequestError)):
        try:
            client.chat.completions.create(**{"model": model, "messages": messages, **wrong})
            raise AssertionError(f"{wrong} was taken")
        except error as caught:
            assert caught.body["message"]
    print("openai: ok")


def reference_scores(gguf):
    """Sum of log-probabilities of each continuation and the number of its tokens, by transformers in float32."""
    import torch
    from pathlib import Path
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(gguf)
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32).eval()
    results = []
    for context, continuation in TEXTS:
        ids = tokenizer(context + continuation, add_special_tokens=False).input_ids
        begin = len(tokenizer(context, add_special_tokens=False).input_ids)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        score = sum(float(logits[i - 1, ids[i]]) for i in range(begin, len(ids)))
        results.append((score, len(ids) - begin))
    return tokenizer, results


def check_lm_eval(url, gguf, tolerance):
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    tokenizer, expected = reference_scores(gguf)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        model = LocalCompletionsAPI(base_url=url + "/v1/completions", model=served_model(url), tokenizer=folder,
                                    tokenizer_backend="huggingface", batch_size=2)
        requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(TEXTS)]
        scores = model.loglikelihood(requests)
    worst = 0.0
    for (score, _), (reference, tokens) in zip(scores, expected):
        worst = max(worst, abs(score - reference) / tokens)
    assert worst <= tolerance, f"log-likelihoods differ by {worst:.2e} a token, more than {tolerance}"
    print(f"lm-eval: ok, log-likelihoods within {worst:.2e} a token of transformers")


def served_model(url):
    return json.load(urllib.request.urlopen(url + "/v1/models"))["data"][0]["id"]


def check_schemathesis(url, examples):
    command = ["schemathesis", "run", url + "/openapi.json", "--url", url, "--checks", "not_a_server_error",
               "--max-examples", str(examples), "--request-timeout", "120", "--workers", "1", "--exclude-path", "/"]
    assert subprocess.run(command).returncode == 0, "schemathesis found a failure"
    print("schemathesis: ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", default=["openai", "lm-eval", "schemathesis"],
                        help="openai, lm-eval, schemathesis; default: all")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--gguf", help="the served model's file, for lm-eval's reference")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="nats a token: 1e-3 for f32, 1e-2 for bf16")
    parser.add_argument("--examples", type=int, default=50, help="schemathesis' examples an operation")
    flags = parser.parse_args()
    if "openai" in flags.checks:
        check_openai(flags.url)
    if "lm-eval" in flags.checks:
        check_lm_eval(flags.url, flags.gguf, flags.tolerance)
    if "schemathesis" in flags.checks:
        check_schemathesis(flags.url, flags.examples)


if __name__ == "__main__":
    sys.exit(main())
