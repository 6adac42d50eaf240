"""Agreement with lm-eval, and the time of a candidate against its own `simple_evaluate` on the same module.

A random Llama of 2 million parameters answers sums: 200 questions with four choices and two examples each, and 32 by
generation. The sides take turns; lm-eval builds its prompts each time, a worker once. Run: python -m benchmarks.lm_eval
"""

import argparse
import json
import logging
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from safetensors.torch import load_file

from benchmarks.text_models import question, write_llama
from tasks.base import TaskRequest
from tasks.language.causal import build
from tasks.language.lm_eval.loading import load

_DATA = "dataset_path: json\ndataset_kwargs: {data_files: {train: train.jsonl, test: test.jsonl}}\n"
_SPLITS = 'training_split: train\ntest_split: test\ndoc_to_text: "{{question}}"\n'
TASKS = {
    "choices": "output_type: multiple_choice\ndoc_to_choice: '{{choices}}'\ndoc_to_target: label\nnum_fewshot: 2\n",
    "answers": "output_type: generate_until\ndoc_to_target: '{{choices[label]}}'\n"
    "generation_kwargs: {until: ['.'], max_gen_toks: 12}\nmetric_list:\n"
    "  - {metric: letters, aggregation: mean, higher_is_better: true}\n"
    "process_results: !function letters.letters\n",
}
#: Generated texts of a random model are never right; this tells them apart.
_LETTERS = """
def letters(doc, results):
    return {"letters": len(set(results[0])) / (1 + len(results[0]))}
"""
DOCUMENTS = {"choices": 200, "answers": 32}
METRICS = {"choices": "acc", "answers": "letters"}


def write_tasks(folder: Path) -> Path:
    """Write sums with four choices, and the two tasks on them."""
    folder.mkdir()
    rng = random.Random(0)
    for split, count in (("train", 50), ("test", max(DOCUMENTS.values()))):
        lines = [json.dumps(question(rng)) for _ in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "letters.py").write_text(_LETTERS)
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"task: bench_{name}\n{_DATA}{_SPLITS}{text}")
    return folder


def compare(kind: str, model: Path, tasks: Path, rounds: int) -> None:
    """Print how many documents differ, and the median times of both sides."""
    backbone = build(str(model), load_file(model / "model.safetensors"), torch.device("cpu"), torch.float32)
    count, name, metric = DOCUMENTS[kind], f"bench_{kind}", METRICS[kind]
    request = TaskRequest(kind, f"lm_eval/{name}", {}, {"include_path": str(tasks)}, test_only=True)
    ours = load(request, backbone)
    own: Any = HFLM(pretrained=backbone.module, tokenizer=backbone.tokenizer, batch_size=16)
    manager = TaskManager(include_defaults=False, include_path=str(tasks))
    seconds: dict[str, list[float]] = {"ours": [], "lm-eval": []}
    ours.evaluate(backbone, "test", 0, 2)  # its prompts
    for _ in range(rounds):
        start = time.perf_counter()
        outcomes = ours.evaluate(backbone, "test", 0, count).outcomes
        middle = time.perf_counter()
        found: Any = lm_eval.simple_evaluate(own, tasks=[name], task_manager=manager, limit=count, bootstrap_iters=0)
        seconds["ours"].append(middle - start)
        seconds["lm-eval"].append(time.perf_counter() - middle)
    values = np.array([sample[metric] for sample in found["samples"][name]], np.float32)
    differ = int((values != outcomes.astype(np.float32)).sum())
    mine, theirs = (statistics.median(seconds[side]) for side in ("ours", "lm-eval"))
    print(f"{kind}: {differ} of {count} documents differ; mean {values.mean():.4f}; ", end="")
    print(f"{mine:.2f} s, simple_evaluate {theirs:.2f} s: {mine / theirs:.3f}")


def main() -> None:
    """Measure both kinds of tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        model, tasks = write_llama(Path(folder) / "model"), write_tasks(Path(folder) / "tasks")
        os.chdir(tasks)  # lm-eval takes the paths of data from here
        for kind in TASKS:
            compare(kind, model, tasks, rounds)


if __name__ == "__main__":
    main()
