"""Local tasks of lm-eval: YAML files and JSON lines of tiny data sets."""

import json
from pathlib import Path

from tiny_language import FOR, WHAT, row

#: Of one length, so that no choice has the highest log-likelihood for its length alone.
COLOURS = ("red", "sky", "jet", "bay", "tan")

#: Task of choices, with training, validation and test documents.
CHOICES = """
task: tiny_choices
dataset_path: json
dataset_kwargs:
  data_files: {train: choices/train.jsonl, validation: choices/validation.jsonl, test: choices/test.jsonl}
training_split: train
validation_split: validation
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_target: label
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
metadata: {version: 1.0}
"""
#: The same with one split, which the examples come from too.
ONE_SPLIT = """
task: tiny_one_split
dataset_path: json
dataset_kwargs: {data_files: {test: choices/test.jsonl}}
test_split: test
fewshot_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_target: label
doc_to_choice: "{{choices}}"
"""
#: Task of generated answers with two filters; `letters` is a share in [0, 1].
ANSWERS = """
task: tiny_answers
dataset_path: json
dataset_kwargs: {data_files: {validation: answers/validation.jsonl, test: answers/test.jsonl}}
validation_split: validation
test_split: test
output_type: generate_until
doc_to_text: "{{text}} The kind is"
doc_to_target: "{{kind}}"
process_results: !function answers.process_results
generation_kwargs: {until: ["."], max_gen_toks: 6, do_sample: false}
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: word, filter: [{function: regex, regex_pattern: "([a-z]+)"}, {function: take_first}]}
metric_list:
  - {metric: letters, aggregation: mean, higher_is_better: true}
"""
#: Texts of 60 to 400 tokens, measured as a whole.
TEXTS = """
task: tiny_texts
dataset_path: json
dataset_kwargs: {data_files: {validation: choices/validation.jsonl, test: choices/test.jsonl}}
validation_split: validation
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{ (text ~ ' é ') * (3 + 4 * label) }}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""
_PROCESS = """
def process_results(doc, results):
    kind = set(doc["kind"])
    return {"letters": len(kind & set(results[0])) / len(kind)}
"""
_GROUP = "group: tiny_group\ntask: [tiny_choices, tiny_one_split]\n"


def write_tasks(folder: Path, count: int = 24) -> Path:
    """Write the tasks above and their data, `count` different documents a split."""
    for part, fill in (("choices", _choices), ("answers", _answers)):
        (folder / part).mkdir(parents=True)
        for i, split in enumerate(("train", "validation", "test")):
            lines = [json.dumps(fill(number)) for number in range(i * count, (i + 1) * count)]
            (folder / part / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "answers.py").write_text(_PROCESS)
    files = {"choices": CHOICES, "one_split": ONE_SPLIT, "answers": ANSWERS, "texts": TEXTS, "group": _GROUP}
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def _choices(number: int) -> dict[str, object]:
    purpose = FOR[number % len(FOR)]
    text = f"A {WHAT[number % len(WHAT)]} for {purpose}. Package {number}"
    return {"text": text, "choices": list(COLOURS), "label": number * 7 % len(COLOURS)}


def _answers(number: int) -> dict[str, object]:
    return {"text": row(number)["source"], "kind": WHAT[number % len(WHAT)]}
