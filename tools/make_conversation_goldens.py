#!/usr/bin/env python3
"""Makes tests/golden/conversation/masks.json: conversations as transformers tokenizes them, with its assistant mask.

The templates are ours, in the style of model families, and name the assistant's words with {% generation %}, which is
what transformers' mask goes by; the tokenizers are those of tests/golden/tokenizer.

usage: pip install transformers==5.23.0 jinja2==3.1.6; tools/make_conversation_goldens.py
"""
import json
import pathlib

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOKENIZERS = ROOT / "tests/golden/tokenizer"
OUT = ROOT / "tests/golden/conversation/masks.json"

CHATML = """{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' -%}{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}{{- message.content + '<|im_end|>' -}}{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

HEADERS = """{{- bos_token -}}{%- for message in messages -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' -}}
{%- if message.role == 'assistant' -%}{%- generation -%}{{- message.content | trim + '<|eot_id|>' -}}{%- endgeneration -%}
{%- else -%}{{- message.content | trim + '<|eot_id|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"""

# The answer's first token holds the space before it.
INST = """{{- bos_token -}}{%- for message in messages -%}
{%- if message.role == 'assistant' -%}{%- generation -%}{{- ' ' + message.content + eos_token -}}{%- endgeneration -%}
{%- else -%}{{- '[INST] ' + message.content + ' [/INST]' -}}{%- endif -%}
{%- endfor -%}"""

# Nothing special ends a turn: the line's end does, and the model has to say it.
PLAIN = """{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{- '### Answer:\\n' -}}{%- generation -%}{{- message.content + '\\n' -}}{%- endgeneration -%}
{%- else -%}{{- '### ' + message.role + ':\\n' + message.content + '\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Answer:\\n' -}}{%- endif -%}"""

# Thoughts of earlier turns are dropped, so the beginning of a conversation is rendered otherwise than the whole.
THINKING = """{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' -%}
{%- if loop.last and message.thought is defined -%}{{- '<think>' + message.thought + '</think>' -}}{%- endif -%}
{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}{{- message.content + '<|im_end|>' -}}{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>' -}}{%- endif -%}"""

SPECIALS = {
    "chatml": ["<|im_start|>", "<|im_end|>"],
    "headers": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "inst": [],
    "plain": [],
    "thinking": ["<|im_start|>", "<|im_end|>"],
}
TEMPLATES = {"chatml": CHATML, "headers": HEADERS, "inst": INST, "plain": PLAIN, "thinking": THINKING}
# Template, tokenizer.
PAIRS = [("chatml", "smollm"), ("chatml", "qwen2"), ("headers", "llama3"), ("inst", "mistral"), ("inst", "llama2"),
         ("plain", "smollm"), ("plain", "llama3"), ("thinking", "smollm")]


def say(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[role], "content": content} for role, content in turns]


CONVERSATIONS = {
    "one": say(("u", "What is it?"), ("a", "A time machine.")),
    "system": say(("s", "Be kind."), ("u", "Who?"), ("a", "The traveller, I think.")),
    "turns": say(("u", "One"), ("a", "Two"), ("u", "Three"), ("a", "Four"), ("u", "Five"), ("a", "Six")),
    "same": say(("u", "yes"), ("a", "yes"), ("u", "yes"), ("a", "yes")),
    "unanswered": say(("u", "One"), ("a", "Two"), ("u", "Three")),
    "no_answer": say(("u", "Nobody there?")),
    "first": say(("a", "Hello."), ("u", "Hi."), ("a", "How are you?")),
    "spaces": say(("u", " around "), ("a", "  two before, newline behind\n"), ("u", "\n\n"), ("a", "\n\nbegins so")),
    "unicode": say(("u", "Grüße 日本"), ("a", "Привет 👋🏽, façade…")),
    "names": say(("u", "assistant"), ("a", "user"), ("u", "<|im_start|>assistant\n"), ("a", "Answer:")),
    "long": say(("u", "word " * 60), ("a", "another " * 80)),
}
CONVERSATIONS["thoughts"] = [dict(message) for message in CONVERSATIONS["turns"]]
for message in CONVERSATIONS["thoughts"]:
    if message["role"] == "assistant":
        message["thought"] = "Hm, " + message["content"]


def load_tokenizer(name, special_tokens):
    golden = json.loads((TOKENIZERS / f"{name}.json").read_text())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(golden["tokenizer"])),
                                        bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": special_tokens})
    return tokenizer


def main():
    cases, added = [], {}
    for template, name in PAIRS:
        tokenizer = load_tokenizer(name, SPECIALS[template])
        added[f"{template} {name}"] = {word: tokenizer.convert_tokens_to_ids(word) for word in SPECIALS[template]}
        for label, messages in CONVERSATIONS.items():
            result = tokenizer.apply_chat_template(messages, chat_template=TEMPLATES[template], tokenize=True,
                                                   return_dict=True, return_assistant_tokens_mask=True)
            # Where no token begins at an answer's first blank, transformers gives up and leaves the mask empty.
            if sum(result["assistant_masks"]) == 0 and any(m["role"] == "assistant" for m in messages):
                continue
            cases.append({"template": template, "tokenizer": name, "conversation": label,
                          "token_ids": result["input_ids"], "by_assistant": result["assistant_masks"]})
    OUT.parent.mkdir(exist_ok=True)
    text = json.dumps({"templates": TEMPLATES, "added": added, "conversations": CONVERSATIONS, "cases": cases},
                      ensure_ascii=False, separators=(",", ":"))
    OUT.write_text(text.replace('{"template":', '\n{"template":') + "\n")


if __name__ == "__main__":
    main()
