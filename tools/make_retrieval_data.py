#!/usr/bin/env python3
"""Writes conversations about a long document that a few made-up facts are hidden in (role `train` of a recipe).

    tools/make_distill_data.py SOURCE data/distill
    tools/make_retrieval_data.py data/distill [COUNT]

A row of the result, train/retrieval.jsonl, is {"messages": [...]}: a passage of the training novels or PEPs with facts
between its sentences, and a question about each. Who skips layers for a prompt's tokens loses such facts first: this
teaches to find them. The answers only lead the way: the loss compares with the base model's own distribution on them.
"""
import json
import pathlib
import random
import re
import sys

from held_out_rows import training_rows

FIRST = ("Ada Omar Lena Jakob Mira Tomas Ingrid Pavel Noor Felix Greta Hugo Amina Viktor Celia Bruno Dalia Anton Freya Karim "
         "Stella Matteo Yuki Leon Priya Oskar Rosa Samuel Thea Ivan Helen George Mary Peter Alice Robert Susan Daniel").split()
LAST = ("Keller Okafor Lindqvist Moreau Tanaka Petrov Hansen Ferrari Novak Silva Weber Costa Ibrahim Olsen Varga Murray "
        "Delacroix Popescu Nakamura Brandt Castillo Fischer Haddad Jensen Kowalski Laurent Mehta Quinn Rossi Sato").split()
TOWNS = ("Marlow|Estville|Port Anders|Halden|Brackwater|Oriel|Tessaly|Kestrel Bay|Norwick|Lindenau|Calder Springs|Velmora|"
         "Ashford|Dunmere|Whitby|Salzburg|Lisbon|Oslo|Bergen|Toledo|Verona|Dresden|Quebec").split("|")
THINGS = ("museum|library|bridge|theatre|school|harbour|railway station|chapel|observatory|mill|market|hospital|garden|hotel|"
          "brewery|newspaper|orchestra|factory").split("|")
ANIMALS = "cat dog parrot horse tortoise goat rabbit donkey crow hedgehog".split()
JOBS = "baker surgeon carpenter pilot librarian chemist gardener judge tailor sailor clockmaker teacher painter farmer".split()
COLOURS = "red green blue yellow white black purple orange grey silver".split()
OBJECTS = "key letter map ring watch notebook coin compass flute lantern medal photograph".split()
PLACES = ("under the stairs|in the attic|behind the piano|in a tin box|beneath the oak tree|inside the clock|on the top shelf|"
          "in the cellar|under the bridge|in the left drawer|behind the mirror|in the glove compartment").split("|")
MATERIALS = "granite copper oak glass brick marble iron clay slate bamboo".split()
DRINKS = "black coffee|green tea|cold milk|apple juice|hot chocolate|ginger beer|red wine|lemonade".split("|")

# (statement, question, short answer, answer in a sentence); a name of a pool in braces is drawn, {number} and {year} too.
FACTS = (
    ("The {thing} of {town} was founded by {person} in {year}.", "Who founded the {thing} of {town}?", "{person}", "It was founded by {person}."),
    ("The {thing} of {town} was opened in {year}.", "In which year was the {thing} of {town} opened?", "{year}", "It was opened in {year}."),
    ("{person} was born in {town}.", "Where was {person} born?", "{town}", "{person} was born in {town}."),
    ("{person} works as a {job}.", "What is the occupation of {person}?", "{job}", "{person} is a {job}."),
    ("{person} has a {animal} called {first}.", "What is the name of the {animal} of {person}?", "{first}", "The {animal} is called {first}."),
    ("The password of the {thing} is {colour}-{number}.", "What is the password of the {thing}?", "{colour}-{number}", "The password is {colour}-{number}."),
    ("The {object} of {person} lies {place}.", "Where is the {object} of {person}?", "{place}", "It lies {place}."),
    ("The {thing} of {town} is built of {material}.", "What is the {thing} of {town} built of?", "{material}", "It is built of {material}."),
    ("A ticket to {town} costs {number} crowns.", "How much is a ticket to {town}?", "{number} crowns", "A ticket to {town} costs {number} crowns."),
    ("The mayor of {town} is {person}.", "Who is the mayor of {town}?", "{person}", "The mayor of {town} is {person}."),
    ("{person} always drinks {drink} in the morning.", "What does {person} drink in the morning?", "{drink}", "{person} drinks {drink}."),
    ("The door of the {thing} in {town} is {colour}.", "Which colour does the door of the {thing} in {town} have?", "{colour}", "The door is {colour}."),
    ("{number} people live in {town}.", "How many people live in {town}?", "{number}", "{number} people live there."),
    ("The ship that sailed to {town} was called the {first} {last}.", "What was the name of the ship that sailed to {town}?", "the {first} {last}", "It was called the {first} {last}."),
    ("{person} lost the {object} in {town}.", "Who lost the {object} in {town}?", "{person}", "{person} lost it."),
    ("The number of the room of {person} is {number}.", "Which room does {person} have?", "{number}", "{person} has room {number}."),
    ("The {animal} of the {thing} in {town} is named {first}.", "How is the {animal} of the {thing} in {town} called?", "{first}", "Its name is {first}."),
    ("{person} repaired the roof of the {thing} in {year}.", "Who repaired the roof of the {thing}?", "{person}", "The roof was repaired by {person}."),
    ("The train to {town} leaves at {hour} o'clock.", "When does the train to {town} leave?", "at {hour} o'clock", "It leaves at {hour} o'clock."),
    ("{person} wrote a book about the {animal}.", "What did {person} write a book about?", "the {animal}", "{person} wrote a book about the {animal}."),
)
TASKS = ("Read the text and answer the question.", "Answer from the document above.", "The text above answers this question:",
         "Here is a question about the text.", "Use the document to answer.", "Question:", "")
SHORT = ("", " Answer in a few words.", " Be brief.")


def sentences_of(text):
    return [part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z\"“])|\n{2,}", text) if part.strip()]


def passages(folder):
    """Sentences of each training text that is not a conversation."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))]
    texts += [row["text"] for row in training_rows(folder / "peps.jsonl")]
    return [sentences for sentences in map(sentences_of, texts) if len(sentences) >= 150]


def draw_fact(draw):
    first, last = draw.choice(FIRST), draw.choice(LAST)
    words = {"first": draw.choice(FIRST), "last": draw.choice(LAST), "person": f"{first} {last}", "town": draw.choice(TOWNS),
             "thing": draw.choice(THINGS), "animal": draw.choice(ANIMALS), "job": draw.choice(JOBS), "colour": draw.choice(COLOURS),
             "object": draw.choice(OBJECTS), "place": draw.choice(PLACES), "material": draw.choice(MATERIALS),
             "drink": draw.choice(DRINKS), "number": draw.randrange(11, 9999), "year": draw.randrange(1650, 2020),
             "hour": draw.randrange(2, 12)}
    return [part.format(**words) for part in draw.choice(FACTS)]


def draw_facts(draw, count):
    facts, questions = [], set()
    while len(facts) < count:
        fact = draw_fact(draw)
        if fact[1] not in questions:
            facts.append(fact)
            questions.add(fact[1])
    return facts


def hide_facts(draw, sentences, size):
    """About `size` characters of a text, as sentences with facts between them, and the facts."""
    begin = draw.randrange(len(sentences) - 100)
    document = []
    for sentence in sentences[begin:]:
        document.append(sentence)
        size -= len(sentence)
        if size <= 0:
            break
    facts = draw_facts(draw, draw.randrange(5, 11))
    for fact in facts:
        document.insert(draw.randrange(len(document) + 1), fact[0])
    return document, facts


def conversation(draw, texts):
    sentences, size = draw.choice(texts), draw.randrange(800, 5200)
    document, facts = hide_facts(draw, sentences, size)
    text = draw.choice((" ", "\n\n", "\n")).join(document)
    draw.shuffle(facts)
    short, messages = draw.random() < 0.4, []
    hint = draw.choice(SHORT) if short else ""
    for fact in facts:
        question = fact[1] + hint
        if not messages:
            question = "\n\n".join(part for part in (text, f"{draw.choice(TASKS)} {question}".strip()))
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": fact[2] if short else fact[3]}]
    return {"messages": messages}


def main():
    folder, count = pathlib.Path(sys.argv[1]) / "train", int(sys.argv[2]) if len(sys.argv) > 2 else 3000
    draw, texts = random.Random(1), passages(folder)
    with open(folder / "retrieval.jsonl", "w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(json.dumps(conversation(draw, texts), ensure_ascii=False) + "\n")
    print(f"{count} conversations about passages of {len(texts)} texts")


if __name__ == "__main__":
    main()
