#!/usr/bin/env python3
"""Writes prompts that prescribe the form of an answer, for the base model to answer (role `prompts` of a recipe).

    tools/make_distill_data.py SOURCE data/distill
    tools/make_instruction_prompts.py data/distill [COUNT]

A row of the result, train/instructions.jsonl, is {"messages": [{"role": "user", ...}]}: a question of P3's or GSM8K's
training rows and an instruction on the form, options under letters, or an open request about words of P3's rows. The
wordings are this file's own and none is of an evaluation's prompt: what is taught is to follow a form, not one form.
"""
import json
import pathlib
import random
import re
import sys

from held_out_rows import training_rows

OPTION_LINE = re.compile(r"^\s*-\s+(?:[A-E]:\s*)?(\S.*?)\s*$", re.MULTILINE)
MARKS = ("{letter}. {option}", "{letter}) {option}", "({letter}) {option}", "{letter}: {option}", "[{letter}] {option}")
NAMES = ("letter", "option", "your letter", "your choice", "A, B, C, ...", "letter_of_the_option", "the right letter")
BRACKETS = ("[{}]", "<{}>", "{{{}}}", "({})", "__{}__", "{}")
CHOICE_FORMS = (
    "Reply with the letter alone.",
    "Give the letter of the right option and nothing else.",
    "Name the right option and say in one sentence why.",
    "Explain your choice in one or two sentences, then write \"Answer: {slot}\".",
    "Finish with a line of the form \"My choice: {slot}\".",
    "The last sentence of your reply must be \"The correct option is {slot}\", with the letter filled in.",
    "End with \"Final choice: {slot}\" where {slot} stands for the letter that you choose.",
    "Conclude with \"I choose {slot}.\" and put your letter in place of {slot}.",
    "Think step by step and close with \"So it is {slot}.\"",
    "Write the letter, a colon and the text of the option.",
    "Respond in JSON: {{\"answer\": \"{slot}\"}}.",
    "Say briefly what is wrong with each of the other options, then write \"Solution: {slot}\".",
    "Start your reply with \"Option {slot}\" and go on with the reason.",
    "Use this format:\nReason: <one sentence>\nAnswer: {slot}",
    "If the question is easy, answer at once. If not, work it out first. In both cases your reply ends with \"Result: {slot}\".",
)
ANSWER_NAMES = ("answer", "your answer", "the answer", "result", "final_answer", "what you found")
ANSWER_FORMS = (
    "Answer with as few words as you can.",
    "Answer in one complete sentence.",
    "Answer in exactly two sentences.",
    "Give the answer first, then the reason.",
    "Explain your reasoning step by step.",
    "Write your answer as a bulleted list.",
    "Answer in JSON with the keys \"answer\" and \"reason\".",
    "End your reply with \"Answer: {slot}\".",
    "Close with the line \"In short: {slot}\".",
    "Your reply should end with \"My conclusion is {slot}\" where {slot} is the answer to the question.",
    "Write \"{slot}\" with the answer filled in, and nothing else.",
    "Use this format:\nThoughts: <your reasoning>\nAnswer: {slot}",
    "Answer as you would to a child of ten.",
    "Begin with \"Thank you for the question.\"",
    "Put the answer between two asterisks, like **this**.",
    "Number the steps of your reasoning and write the answer in the last one.",
)
REQUESTS = (
    "Write a short story in which these words occur: {words}.",
    "Explain to a beginner what the following have to do with each other: {words}.",
    "Write a poem of eight lines about {word}.",
    "Give five tips about {word}.",
    "What should I know about {word}?",
    "Write an email to a colleague about {word}.",
    "Describe {word} in three sentences.",
    "List three advantages and three disadvantages of {word}.",
    "Write a dialogue between two people who disagree about {word}.",
    "Make up a quiz of three questions about {word}, with the answers.",
    "Write a Python function that has something to do with {word}, and explain it.",
    "Compare {words} in a table.",
    "Tell me a joke about {word}.",
    "Plan a day that has to do with {words}.",
    "Write a product description for {word}.",
    "How would you explain {word} to someone who has never seen it?",
)
MAX_CHARACTERS = 1500


def read_prompts(path):
    prompts = (row["messages"][0]["content"].strip() for row in training_rows(path))
    return [prompt for prompt in prompts if len(prompt) <= MAX_CHARACTERS]


def choices(prompts):
    """(question, options) of each prompt that ends with a list of options."""
    found = []
    for prompt in prompts:
        options = OPTION_LINE.findall(prompt)
        first = OPTION_LINE.search(prompt)
        if 2 <= len(options) <= 5 and first.start() > 40:
            question = re.sub(r"\s*\b(Options|Choices|Possible answers|Answer options)\s*:?\s*$", "", prompt[:first.start()].strip())
            found.append((question, options))
    return found


def concepts(prompts):
    """Lists of words: "... concepts: lake, paddle, canoe; ..."."""
    lists = (re.search(r"(?:concepts|using|sentence): ?([a-z]+(?:, [a-z]+){2,4})\b", prompt) for prompt in prompts)
    return [found.group(1).split(", ") for found in lists if found]


def joined(draw, parts):
    return draw.choice(("\n\n", "\n", " ")).join(parts)


def with_form(draw, text, forms, names):
    form = draw.choice(forms).format(slot=draw.choice(BRACKETS).format(draw.choice(names)))
    return joined(draw, (form, text) if draw.random() < 0.25 else (text, form))


def lettered(draw, question, options):
    options, mark = draw.sample(options, len(options)), draw.choice(MARKS)
    lines = [mark.format(letter=letter, option=option) for letter, option in zip("ABCDE", options)]
    return draw.choice(("{}\n{}", "Question: {}\n{}", "{}\n\n{}")).format(question, "\n".join(lines))


def request(draw, words):
    return draw.choice(REQUESTS).format(words=", ".join(words), word=draw.choice(words))


def main():
    folder, count = pathlib.Path(sys.argv[1]) / "train", int(sys.argv[2]) if len(sys.argv) > 2 else 12000
    draw = random.Random(1)
    p3, gsm8k = read_prompts(folder / "p3_open.jsonl"), read_prompts(folder / "gsm8k_train.jsonl")
    multiple_choice, word_lists = choices(p3), concepts(p3)
    makers = (
        (0.35, lambda: with_form(draw, lettered(draw, *draw.choice(multiple_choice)), CHOICE_FORMS, NAMES)),
        (0.25, lambda: with_form(draw, draw.choice(p3), ANSWER_FORMS, ANSWER_NAMES)),
        (0.15, lambda: with_form(draw, draw.choice(gsm8k), ANSWER_FORMS, ANSWER_NAMES)),
        (0.25, lambda: request(draw, draw.choice(word_lists))),
    )
    with open(folder / "instructions.jsonl", "w", encoding="utf-8") as file:
        for maker in draw.choices([maker for _, maker in makers], [share for share, _ in makers], k=count):
            file.write(json.dumps({"messages": [{"role": "user", "content": maker()}]}, ensure_ascii=False) + "\n")
    print(f"{count} prompts from {len(p3)} + {len(gsm8k)} questions, {len(multiple_choice)} with options, {len(word_lists)} lists of words")


if __name__ == "__main__":
    main()
