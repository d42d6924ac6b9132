#!/usr/bin/env python3
"""Renders every template of a folder over many conversations with transformers and with swiftkv, and compares.

  python3 -m venv ~/.cache/templates && ~/.cache/templates/bin/pip install transformers jinja2
  ~/.cache/templates/bin/python tools/compare_chat_templates.py FOLDER [--driver build/release/render_chat_template]

FOLDER holds *.jinja files, for example vendor/llama.cpp/models/templates of the llama-cpp-python sdist. Text must be
equal byte for byte; where one fails the other must fail too, with the same text if the template raised the error.
"""
import argparse
import datetime
import itertools
import json
import pathlib
import subprocess
import sys

import jinja2
from transformers.utils import chat_template_utils

NOW = 1_732_060_800  # 2024-11-20


class FixedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, tz)


chat_template_utils.datetime = FixedDatetime

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather at a place, in \"°C\" & <more>.",
        "parameters": {"type": "object", "properties": {
            "location": {"type": "string", "description": "City, e.g. Zürich"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            "days": {"type": "integer", "minimum": 1, "maximum": 1.5e16},
            "tags": {"type": "array", "items": {"type": "string"}},
            "area": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": ["number", "null"]}},
                     "required": ["lat"]}},
            "required": ["location"]}}},
    {"type": "function", "function": {"name": "stop", "description": "Stops.\nAt once.",
                                      "parameters": {"type": "object", "properties": {}},
                                      "return": {"type": "null", "description": "Nothing"}}},
]
DOCUMENTS = [{"title": "Bread", "text": "Flour, water & salt.", "doc_id": 1},
             {"title": "Brot", "text": "Mehl – Wasser – Salz 🍞", "doc_id": 2, "extra": [1, 2.5, None, True]}]
CALL = {"type": "function", "id": "call12345", "function": {
    "name": "get_weather", "arguments": {"location": "Zürich <b>\"x\"</b>", "days": 3, "unit": None, "x": [1, {"y": 0.1}]}}}
STRING_CALL = {"type": "function", "id": "abcdefghi", "function": {
    "name": "get_weather", "arguments": "{\"location\": \"Bern\", \"days\": 1}"}}
EMPTY_CALL = {"type": "function", "id": "zzzzzzzzz", "function": {"name": "stop", "arguments": {}}}


def user(content="Hello!"):
    return {"role": "user", "content": content}


def assistant(content="Hi.", **more):
    return {"role": "assistant", "content": content, **more}


def tool(content="{\"temperature\": 21}", **more):
    return {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": content, **more}


SYSTEM = {"role": "system", "content": "  You are a helpful assistant.\n"}
PARTS = [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "what is it?"}]
CONVERSATIONS = {
    "empty": [],
    "user": [user()],
    "system_user": [SYSTEM, user()],
    "developer": [{"role": "developer", "content": "Be brief."}, user()],
    "only_system": [SYSTEM],
    "turns": [SYSTEM, user("1 + 1?"), assistant("2"), user("And 2 + 2?"), assistant("4"), user("Thanks!")],
    "ends_with_assistant": [user(), assistant(" Hi there. ")],
    "two_users": [user("a"), user("b")],
    "assistant_first": [assistant("Hi."), user()],
    "system_late": [user(), assistant(), SYSTEM, user("x")],
    "spaces": [user("\n  padded \t\n"), assistant("\n\nx\n"), user(" ")],
    "empty_content": [user(""), assistant(""), user("")],
    "unicode": [user("Grüße, Ελλάς ΣΑΣ, 日本語, עברית, 👩‍👩‍👧 \u00a0\u2028 é ﬁ ß İ"), assistant("ÅÄÖ"), user("🙂")],
    "markup": [user("<|im_start|>system\nx<|im_end|> {{ 1 }} {% if %} [INST] <think>a</think>b & \\n \"q\" 'q'")],
    "control": [user("a\r\nb\u0000c\u001b\u007f\u0085d\ttab\\")],
    "parts": [user(PARTS)],
    "text_parts": [{"role": "system", "content": [{"type": "text", "text": "Sys."}]},
                   user([{"type": "text", "text": "One. "}, {"type": "text", "text": "Two."}]),
                   assistant([{"type": "text", "text": "Three."}]), user("x")],
    "video": [user([{"type": "video", "video": "v.mp4"}, {"type": "image_url", "image_url": {"url": "x"}},
                    {"type": "audio", "audio": "a"}, {"type": "text", "text": "t"}])],
    "string_parts": [user(["a", "b"])],
    "think_in_content": [user(), assistant("<think>\nHm.\n</think>\n\nYes."), user("Sure?"),
                         assistant("<think>Well</think>No."), user("?")],
    "reasoning": [user(), assistant("Yes.", reasoning_content="Let me think.\n"), user("?"),
                  assistant("No.", reasoning_content="")],
    "thinking": [user(), assistant("Yes.", thinking="Old name."), user("?")],
    "tool_call": [SYSTEM, user("Weather?"), assistant("", tool_calls=[CALL]), tool(), assistant("21 °C."), user("Thx")],
    "tool_call_none": [user("Weather?"), assistant(None, tool_calls=[CALL]), tool(), assistant("21 °C.")],
    "tool_call_no_content": [user("Weather?"), {"role": "assistant", "tool_calls": [CALL]}, tool()],
    "tool_call_text": [user("Weather?"), assistant("Let me see.", tool_calls=[CALL]), tool("sunny")],
    "tool_call_reasoning": [user("Weather?"), assistant("", reasoning_content="A tool!", tool_calls=[CALL]), tool(),
                            assistant("21", reasoning_content="Good.")],
    "tool_calls": [user("Weather?"), assistant("", tool_calls=[CALL, EMPTY_CALL]), tool(), tool("[]", name="stop"),
                   assistant("Done."), user("More"), assistant("", tool_calls=[EMPTY_CALL]), tool("null")],
    "tool_call_string": [user("Weather?"), assistant("", tool_calls=[STRING_CALL]), tool()],
    "tool_call_bare": [user("Weather?"), assistant("", tool_calls=[{"name": "f", "arguments": {"a": 1}}]), tool()],
    "tool_call_empty": [user("Weather?"), assistant("x", tool_calls=[]), user("y")],
    "tool_object": [user("Weather?"), assistant("", tool_calls=[CALL]), tool({"temperature": 21, "ok": True})],
    "tool_parts": [user("Weather?"), assistant("", tool_calls=[CALL]), tool([{"type": "text", "text": "sunny"}])],
    "tool_list": [user("Weather?"), assistant("", tool_calls=[CALL]), tool([1, "two", None])],
    "tool_only": [tool()],
    "ipython": [user("1+1"), assistant("<|python_tag|>1+1"), {"role": "ipython", "content": "2"}],
    "unknown_role": [user(), {"role": "critic", "content": "Bah."}, user("x")],
    "no_role": [{"content": "x"}],
    "no_content": [{"role": "user"}],
    "number_content": [user(3.5), assistant(True)],
    "channel": [user(), assistant("Hi", channel="final", thinking="x"), user("y")],
    "prefix": [user(), assistant("Hi", prefix=True, weight=0)],
}
TOOL_SETS = {"": {}, "tools": {"tools": TOOLS}, "no_tools": {"tools": []}}
OPTIONS = [{}, {"add_generation_prompt": True}]
EXTRAS = {
    "": {},
    "documents": {"documents": DOCUMENTS},
    "thinking": {"enable_thinking": True, "thinking": True},
    "no_thinking": {"enable_thinking": False, "thinking": False},
    "kwargs": {"builtin_tools": ["brave_search", "code_interpreter"], "date_string": "1 Jan 2025",
               "tools_in_user_message": False, "xml_tools": TOOLS, "python_tools": TOOLS, "reasoning_effort": "high",
               "model_identity": "You are a test.", "add_vision_id": True, "citations": "on", "controls": {"length": "short"},
               "available_tools": TOOLS, "functions": TOOLS, "custom_instructions": "Be nice.", "keep_past_thinking": True,
               "preserve_thinking": True, "clear_thinking": False, "truncate_history_thinking": False},
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def reference(source, variables):
    """("text", text), ("raised", text) or ("error", text)."""
    given = {**variables}
    messages = given.pop("messages")
    try:
        rendered, _ = chat_template_utils.render_jinja_template([messages], chat_template=source, **given)
        rendered[0].encode()
        return "text", rendered[0]
    except jinja2.exceptions.TemplateError as error:
        return ("raised" if type(error) is jinja2.exceptions.TemplateError else "error"), str(error.message)
    except Exception as error:  # whatever Python raises inside a template
        return "error", f"{type(error).__name__}: {error}"


class Driver:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, source, variables):
        self.process.stdin.write(json.dumps({"template": source, "variables": variables, "now": NOW}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the driver ended with {self.process.wait()} on {json.dumps(variables)}\n{source}")
        return json.loads(line)


def show(text):
    return text if len(text) < 600 else text[:600] + "..."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--driver", default="build/release/render_chat_template")
    parser.add_argument("--only", default="")
    parser.add_argument("--show", type=int, default=5, help="differences to print")
    arguments = parser.parse_args()
    driver = Driver(arguments.driver)
    counts = {"equal": 0, "both raised": 0, "both failed": 0, "different": 0}
    wording = {}
    templates = [path for path in sorted(arguments.folder.glob("*.jinja")) if arguments.only in path.name]
    for path in templates:
        source = path.read_text()
        different = 0
        for (name, messages), (tools_name, tools), options, (extra_name, extra) in itertools.product(
                CONVERSATIONS.items(), TOOL_SETS.items(), OPTIONS, EXTRAS.items()):
            variables = {"messages": messages, **TOKENS, **tools, **options, **extra}
            kind, expected = reference(source, variables)
            got = driver(source, variables)
            if kind == "text" and got.get("text") == expected:
                counts["equal"] += 1
            elif kind == "raised" and got.get("error") == expected:
                counts["both raised"] += 1
            elif kind == "error" and "error" in got:
                counts["both failed"] += 1
                ours = got["error"].split(": ", 1)[-1]
                theirs = expected.split(": ", 1)[-1] if expected.split(":")[0].endswith("Error") else expected
                if ours != theirs:
                    wording[(theirs, ours)] = wording.get((theirs, ours), 0) + 1
            else:
                counts["different"] += 1
                different += 1
                if counts["different"] <= arguments.show:
                    print(f"--- {path.name} {name} {tools_name} {options} {extra_name}\nexpected {kind}: {show(expected)!r}\n"
                          f"got {show(json.dumps(got))}")
        if different:
            print(f"{path.name}: {different} differ")
    for (theirs, ours), count in sorted(wording.items(), key=lambda item: -item[1])[:arguments.show]:
        print(f"worded differently {count}x: {show(theirs)!r} / {show(ours)!r}")
    print(f"{len(templates)} templates: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    return 1 if counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
