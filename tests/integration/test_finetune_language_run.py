"""Language models of `lines finetune` are experts of `lines run`, with the accuracy that their training gave."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_run import Lines, write_spec
from small_texts import write_text_finetune

TASKS = ("kinds", "more")


@pytest.mark.parametrize(("family", "method", "head"), [("seq2seq", "lora", None), ("encoder", "full", "own")])
def test_two_experts_are_made_and_merged(lines: Lines, family: str, method: str, head: str | None) -> None:
    folder = lines.folder
    training: dict[str, Any] = {"lr": 3e-3, "steps": 6, "batch_size": 8, **({"head": head} if head else {})}
    tasks = {name: f"./{name}" for name in TASKS}
    spec = write_text_finetune(folder, family, tasks=tasks, methods={method: {}}, training=training)
    shutil.copytree(folder / "kinds", folder / "more")
    shutil.move(folder / "more" / "train.jsonl", folder / "spare.jsonl")
    rows = (folder / "spare.jsonl").read_text().splitlines()[:24]
    (folder / "more" / "train.jsonl").write_text("\n".join(rows) + "\n")
    status, output = lines("validate", spec)
    assert status == 0 and f"{method}/more" in output, output
    status, output = lines("finetune", spec, "--out", folder / "models")
    assert status == 0 and "val, base" in output, output
    status, output = lines("finetune", spec, "--out", folder / "models")
    assert status == 0 and "2 of 2 are finished" in output, output
    experts = {name: str(folder / "models" / method / name) for name in TASKS}
    assert lines.run(run_spec(folder, family, experts, head is not None), folder / "run")[0] == 0
    scores = pq.read_table(folder / "run" / "scores.parquet").to_pylist()
    for name, expert in experts.items():
        result = json.loads((Path(expert) / "train.json").read_text())
        own = [r["value"] for r in scores if (r["arm"], r["task"], r["split"]) == (f"tuned {name}", name, "val")]
        assert own == [pytest.approx(result["val_accuracy"])]


def run_spec(folder: Path, family: str, experts: dict[str, str], headed: bool) -> Path:
    options = {name: {"options": {"head": expert}} if headed else {} for name, expert in experts.items()}
    fields: dict[str, Any] = {
        "name": "experts",
        "backbone": {"family": family, "model": "base"},
        "base": "base",
        "experts": experts,
        "tasks": {name: {"source": f"./{name}", **options[name]} for name in experts},
        "arms": {
            **{f"tuned {name}": {"edit": name} for name in experts},
            "sum + LiNeS": {"merge": "sum", "scaling": {"function": "linear", "alpha": 0.2, "beta": 0.4}},
        },
        "controls": [],
        "shard_size": 8,
        "resources": {"pool": "local"},
    }
    return write_spec(folder, fields)
