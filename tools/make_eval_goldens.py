#!/usr/bin/env python3
"""Writes tests/golden/eval: excerpts of the evaluation sets, and what lm-eval makes of them.

    python3 tools/make_eval_goldens.py SETS PROMPTS tests/golden/eval

SETS is the folder that `swiftkv eval --data` reads. PROMPTS holds a JSON file a task with the card's prompts of some
documents, rendered by the harness that the card used. Made with lm-eval 0.4.13.

    sets/            a few rows of each set, in its own layout; LICENSES.md names their origin
    prompts/         the card's prompts of those rows, and the leaderboard's as lm-eval's own ConfigurableTask builds them
    scores/          1,000 made-up responses a task: what lm-eval's filters and process_results say
    rolling_windows.jsonl  contexts and scored tokens of short texts, as lm-eval's rolling log-likelihood has them
"""
import json
import os
import pathlib
import random
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks.hellaswag.utils import process_docs as hellaswag_docs
from lm_eval.tasks.truthfulqa.utils import process_results_mc2
from lm_eval.tasks.winogrande import preprocess_winogrande
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

RESPONSES = 1000
ARC = "arc_challenge_llama_3.1_instruct"
MMLU = "mmlu_llama_3.1_instruct"
MMLU_COT = "mmlu_cot_0shot_llama_3.1_instruct"
GSM8K = "gsm8k_cot_llama_3.1_instruct"

LICENSES = """# Excerpts of evaluation sets

| folder | set | licence |
| --- | --- | --- |
| arc_challenge | AI2 Reasoning Challenge (Clark et al. 2018), Allen Institute for AI | CC-BY-SA 4.0 |
| winogrande | WinoGrande 1.1 (Sakaguchi et al. 2019), Allen Institute for AI | CC-BY 4.0 |
| hellaswag | HellaSwag (Zellers et al. 2019), github.com/rowanz/hellaswag | MIT |
| truthfulqa | TruthfulQA (Lin et al. 2021), github.com/sylinrl/TruthfulQA | Apache-2.0 |
| mmlu | MMLU (Hendrycks et al. 2020), github.com/hendrycks/test | MIT |
| gsm8k | GSM8K (Cobbe et al. 2021), github.com/openai/grade-school-math; the eight worked examples are from Wei et al. 2022 | MIT |

The rows are unchanged; tools/make_eval_goldens.py chose them.
"""


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [line for line in file if line.strip()]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_json(path, value):
    write(path, json.dumps(value, ensure_ascii=False, indent=0) + "\n")


def excerpts(sets, prompts, out):
    """Copies the rows that the prompts are of, and their shots; returns the rows of the MMLU subjects."""
    (out / "sets").mkdir(parents=True, exist_ok=True)
    write(out / "sets" / "LICENSES.md", LICENSES)
    rows = {name: [case["doc"] for case in json.load(open(prompts / f"{name}.json", encoding="utf-8"))]
            for name in (ARC, "winogrande", "hellaswag", "truthfulqa_mc2", MMLU, GSM8K)}
    files = [("arc_challenge/ARC-Challenge-Test.jsonl", rows[ARC]), ("arc_challenge/train.jsonl", range(25)),
             ("winogrande/dev.jsonl", rows["winogrande"]), ("winogrande/train_xs.jsonl", range(5)),
             ("hellaswag/hellaswag_val.jsonl", rows["hellaswag"]),
             ("hellaswag/hellaswag_train_fewshot11.jsonl", range(10)),
             ("truthfulqa/truthfulqa_mc_validation.jsonl", rows["truthfulqa_mc2"]),
             ("mmlu/mmlu_test.jsonl", rows[MMLU]), ("gsm8k/test.jsonl", rows[GSM8K]), ("gsm8k/train.jsonl", range(5))]
    for name, chosen in files:
        lines = read_lines(sets / name)
        write(out / "sets" / name, "".join(lines[row] for row in chosen))
    subjects = {json.loads(line)["subject"] for line in read_lines(out / "sets/mmlu/mmlu_test.jsonl")}
    dev = [line for line in read_lines(sets / "mmlu/mmlu_dev.jsonl") if json.loads(line)["subject"] in subjects]
    write(out / "sets/mmlu/mmlu_dev.jsonl", "".join(dev))
    write(out / "sets/gsm8k/fewshot8_llama31.json",
          (sets / "gsm8k/fewshot8_llama31.json").read_text(encoding="utf-8"))


def card_prompts(prompts, out):
    for path in sorted(prompts.glob("*.json")):
        cases = json.loads(path.read_text(encoding="utf-8"))
        write_json(out / "prompts" / path.name, cases)


def json_task(files, **config):
    """lm-eval's task over local files: a split name and path each."""
    config.setdefault("metric_list", [{"metric": "acc"}, {"metric": "acc_norm"}])
    return ConfigurableTask(config={"dataset_path": "json",
                                    "dataset_kwargs": {"data_files": {k: str(v) for k, v in files.items()}},
                                    "output_type": "multiple_choice", **config})


def leaderboard_tasks(sets):
    """The leaderboard's forms, copied from lm-eval's YAML files, with the first rows as shots."""
    first = {"sampler": "first_n"}
    arc_flat = sets / "arc_challenge" / "flat.jsonl"
    rows = []
    for line in read_lines(sets / "arc_challenge/ARC-Challenge-Test.jsonl"):
        row = json.loads(line)
        choices = row["question"]["choices"]
        rows.append({"question": row["question"]["stem"], "answerKey": row["answerKey"],
                     "choices": {"text": [c["text"] for c in choices], "label": [c["label"] for c in choices]}})
    write(arc_flat, "".join(json.dumps(row) + "\n" for row in rows))
    tasks = {
        "arc_challenge": (json_task(
            {"train": sets / "arc_challenge/train.jsonl", "test": arc_flat}, task="arc_challenge", test_split="test",
            training_split="train", fewshot_split="train", fewshot_config=first,
            doc_to_text="Question: {{question}}\nAnswer:", doc_to_target="{{choices.label.index(answerKey)}}",
            doc_to_choice="{{choices.text}}"), 25),
        "gsm8k": (json_task(
            {"train": sets / "gsm8k/train.jsonl", "test": sets / "gsm8k/test.jsonl"}, task="gsm8k", test_split="test",
            training_split="train", fewshot_split="train", fewshot_config=first, output_type="generate_until",
            metric_list=[{"metric": "exact_match"}], generation_kwargs={"until": ["Question:", "</s>", "<|im_end|>"]},
            doc_to_text="Question: {{question}}\nAnswer:", doc_to_target="{{answer}}"), 5)}
    dev = [json.loads(line) for line in read_lines(sets / "mmlu/mmlu_dev.jsonl")]
    test = [json.loads(line) for line in read_lines(sets / "mmlu/mmlu_test.jsonl")]
    for subject in sorted({row["subject"] for row in test}):
        files = {}
        for split, split_rows in (("dev", dev), ("test", test)):
            files[split] = sets / "mmlu" / f"{split}_{subject}.jsonl"
            write(files[split], "".join(json.dumps(row) + "\n" for row in split_rows if row["subject"] == subject))
        tasks[f"mmlu_{subject}"] = (json_task(
            files, task=f"mmlu_{subject}", test_split="test", fewshot_split="dev", fewshot_config=first,
            description="The following are multiple choice questions (with answers) about "
                        f"{subject.replace('_', ' ')}.\n\n",
            doc_to_text="{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\n"
                        "D. {{choices[3]}}\nAnswer:",
            doc_to_choice=["A", "B", "C", "D"], doc_to_target="answer"), 5)
        for path in files.values():
            path.unlink()
    arc_flat.unlink()
    return tasks


def leaderboard_prompts(tasks, out):
    cases = {}
    for name, (task, shots) in tasks.items():
        found = cases.setdefault("mmlu" if name.startswith("mmlu") else name, [])
        for doc in task.eval_docs:
            context = task.fewshot_context(doc, num_fewshot=shots)
            choices = task.doc_to_choice(doc) if task.OUTPUT_TYPE == "multiple_choice" else []
            found.append({"subject": doc.get("subject", ""), "context": context,
                          "continuations": [" " + choice for choice in choices]})
    for name, found in cases.items():
        write_json(out / "prompts" / f"leaderboard_{name}.json", found)


LETTER_TEXTS = ["The best answer is {}", "The best answer is {}.", "{}", "the answer is {}", " ({})", "It is {}. no, {}",
                "best answer is {}", "The best answer is: {}", "I think so.\nThe best answer is {}\n", "", "maybe", "é {}",
                "The best answer is the first, {}", "The best answer is {}<|eot_id|>", "According to me, {}"]
NUMBER_TEXTS = ["The final answer is {}.", "The final answer is {}", "The final answer is {}\n", "The final answer is ${}.",
                "So {} and {}. The final answer is {}. The final answer is {}.", "{}", "#### {}", "x\n#### {}\n#### {}",
                "The final answer is -{}!", "The final answer is {} dollars", "$ {} .", "nothing", "", "The final answer is",
                "- {}", "a {},{} b", "The final answer is **{}**.", "The final answer is {}é", "#### $ {}", "--{}", "{}é"]
NUMBERS = ["18", "3", "70000", "1,000", "7.5", "18.", "18.00", ".", ",", "1.,2", "-4", "$5", "0", "18,", "3.0", "5"]


def made_up_text(rng, templates, values):
    template = rng.choice(templates)
    return template.format(*[rng.choice(values) for _ in range(template.count("{}"))])


def text_scores(rng, out, name, docs, ensembles, gold, metric, templates, values):
    """Responses to docs, each filter's answer and its exact_match as lm-eval has them."""
    cases = []
    for _ in range(RESPONSES):
        row = rng.randrange(len(docs))
        text = made_up_text(rng, templates, values + [gold(docs[row])])
        filtered, scores = [], []
        for ensemble in ensembles:
            instance = Instance("generate_until", docs[row], ("", {}), 0)
            instance.resps = [text]
            ensemble.apply([instance])
            answer = instance.filtered_resps[ensemble.name]
            filtered.append(answer)
            scores.append(metric(answer, gold(docs[row])))
        cases.append([row, text, filtered, scores])
    write(out / "scores" / f"{name}.jsonl", "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases))


def exact_match(**options):
    from lm_eval.api.metrics import exact_match_hf_evaluate

    return lambda answer, gold: float(
        exact_match_hf_evaluate(predictions=[answer], references=[gold], **options)["exact_match"])


def all_text_scores(rng, sets, out):
    take_first = ("take_first", None)

    def ensemble(name, kind, pattern, select=0):
        return build_filter_ensemble(name, [(kind, {"regex_pattern": pattern, "group_select": select}), take_first])

    def rows(name):
        return [json.loads(line) for line in read_lines(sets / name)]

    arc = [{**row, "choices": [c["text"] for c in row["question"]["choices"]]}
           for row in rows("arc_challenge/ARC-Challenge-Test.jsonl")]
    letters = ["A", "B", "C", "D", "E", "b"]
    # The filter's later attempts answer "(A)", which these tasks never count as right (docs/eval.md).
    first_letter = ensemble("multi_choice_regex", "regex", "([ABCD])")
    text_scores(rng, out, ARC, arc, [first_letter], lambda doc: doc["answerKey"], exact_match(), LETTER_TEXTS, letters)
    mmlu = rows("mmlu/mmlu_test.jsonl")
    letter = lambda doc: "ABCD"[doc["answer"]]
    text_scores(rng, out, MMLU, mmlu, [first_letter], letter, exact_match(), LETTER_TEXTS, letters)
    strict = ensemble("strict-match", "regex", "The best answer is ([ABCD])")
    text_scores(rng, out, MMLU_COT, mmlu, [strict], letter, exact_match(), LETTER_TEXTS, letters)

    gsm8k = rows("gsm8k/test.jsonl")
    number = exact_match(ignore_case=True, regexes_to_ignore=[",", r"\$", "(?s).*#### ", r"\.$"])
    flexible = ensemble("flexible-extract", "regex", r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)
    gold = lambda doc: doc["answer"].split("####")[-1].strip()
    strict = ensemble("strict-match", "regex", r"The final answer is (\-?[0-9\.\,]+).")
    text_scores(rng, out, GSM8K, gsm8k, [strict, flexible], gold, number, NUMBER_TEXTS, NUMBERS)
    strict = ensemble("strict-match", "regex", r"#### (\-?[0-9\.\,]+)")
    text_scores(rng, out, "gsm8k", gsm8k, [strict, flexible], lambda doc: doc["answer"].split("#### ")[-1], number,
                NUMBER_TEXTS, NUMBERS)


def choice_scores(rng, out, name, task, metrics):
    """Log-likelihoods of the choices, and process_results of them; some are equal."""
    docs = list(task.eval_docs)
    cases = []
    for _ in range(RESPONSES):
        row = rng.randrange(len(docs))
        count = len(docs[row]["mc2_targets"]["choices"]) if name == "truthfulqa_mc2" else len(
            task.doc_to_choice(docs[row]))
        values = [round(-rng.expovariate(1 / 30), 1) for _ in range(count)]
        if rng.random() < 0.2:
            values[-1] = values[0]
        scores = task.process_results(docs[row], [(value, False) for value in values])
        cases.append([row, values, [float(scores[metric]) for metric in metrics]])
    write(out / "scores" / f"{name}.jsonl", "".join(json.dumps(case) + "\n" for case in cases))


def all_choice_scores(rng, sets, tasks, out):
    hellaswag = json_task({"validation": sets / "hellaswag/hellaswag_val.jsonl"}, task="hellaswag",
                          validation_split="validation", process_docs=hellaswag_docs, doc_to_text="{{query}}",
                          doc_to_target="{{label}}", doc_to_choice="choices")
    winogrande = json_task({"validation": sets / "winogrande/dev.jsonl"}, task="winogrande",
                           validation_split="validation", doc_to_text=preprocess_winogrande.doc_to_text,
                           doc_to_target=preprocess_winogrande.doc_to_target,
                           doc_to_choice=preprocess_winogrande.doc_to_choice, metric_list=[{"metric": "acc"}])
    truthfulqa = json_task({"validation": sets / "truthfulqa/truthfulqa_mc_validation.jsonl"}, task="truthfulqa_mc2",
                           validation_split="validation", doc_to_text="{{question}}", doc_to_target=0,
                           doc_to_choice="{{mc2_targets.choices}}", process_results=process_results_mc2,
                           metric_list=[{"metric": "acc"}])
    choice_scores(rng, out, "hellaswag", hellaswag, ["acc_norm", "acc"])
    choice_scores(rng, out, "winogrande", winogrande, ["acc"])
    choice_scores(rng, out, "truthfulqa_mc2", truthfulqa, ["acc"])
    choice_scores(rng, out, "arc_challenge", tasks["arc_challenge"][0], ["acc_norm", "acc"])
    # lm-eval's own tasks of MMLU are by subject; this one has the rows in the set's order.
    mmlu = json_task({"test": sets / "mmlu/mmlu_test.jsonl"}, task="mmlu", test_split="test",
                     doc_to_text="{{question.strip()}}", doc_to_choice=["A", "B", "C", "D"],
                     doc_to_target="answer", metric_list=[{"metric": "acc"}])
    choice_scores(rng, out, "mmlu", mmlu, ["acc"])


def rolling_windows(out):
    """Texts of the tokens 0, 1, ... after a prefix token 100."""
    cases = []
    for length in (1, 2, 3, 8):
        for tokens in (1, 2, 3, 7, 8, 9, 15, 16, 17, 20):
            windows = get_rolling_token_windows(list(range(tokens)), 100, length, 1)
            cases.append({"tokens": tokens, "length": length,
                          "windows": [make_disjoint_window(window) for window in windows]})
    write(out / "rolling_windows.jsonl", "".join(json.dumps(case) + "\n" for case in cases))


def main(sets, prompts, out):
    sets, prompts, out = pathlib.Path(sets), pathlib.Path(prompts), pathlib.Path(out)
    excerpts(sets, prompts, out)
    card_prompts(prompts, out)
    tasks = leaderboard_tasks(out / "sets")
    leaderboard_prompts(tasks, out)
    rolling_windows(out)
    rng = random.Random(20)
    all_text_scores(rng, out / "sets", out)
    all_choice_scores(rng, out / "sets", tasks, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
