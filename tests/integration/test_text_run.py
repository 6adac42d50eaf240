"""Proves a run of language models on text tasks from spec to tables: choices, margins, resuming."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import Lines, tables, write_spec
from tiny_language import row, t5_config, write_tiny_llama, write_tiny_seq2seq

SCALING = {"function": "linear", "alpha": 0.3, "beta": {"grid": [0, 1]}}
CHOICES = ["a small tool", "a library for robots", "data"]


def write_rows(folder: Path) -> None:
    folder.mkdir()
    for start, split in ((0, "val"), (20, "test")):
        prompts = [row(i)["source"][: 30 + i % 7].strip() for i in range(start, start + 12)]
        rows = [{"prompt": prompt, "choices": CHOICES, "label": i % 3} for i, prompt in enumerate(prompts)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


@pytest.fixture(scope="module", params=["causal", "seq2seq"])
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "causal":
        write_tiny_llama(folder / "base", layers=2)
    else:
        write_tiny_seq2seq(folder / "base", t5_config(2, 2))
    for seed, name in enumerate(("facts", "spans")):
        shutil.copytree(folder / "base", folder / name)
        state = load_file(folder / name / "model.safetensors")
        noise = torch.Generator().manual_seed(seed)
        moved = {n: t + 0.05 * torch.randn(t.shape, generator=noise) for n, t in state.items()}
        save_file(moved, folder / name / "model.safetensors", {"format": "pt"})
    write_rows(folder / "facts-rows")
    write_rows(folder / "spans-rows")
    return folder


def spec_of(ground: Path) -> Path:
    fields: dict[str, Any] = {
        "name": "texts",
        "backbone": {"family": ground.name.rstrip("0123456789"), "model": "base"},
        "base": "base",
        "experts": {"facts": "facts", "spans": "spans"},
        "tasks": {
            "facts": {"source": "facts-rows", "options": {"batch_size": 5}},
            "spans": {"source": "spans-rows", "options": {"length_normalised": True}},
        },
        "arms": {"sum + LiNeS": {"merge": "sum", "scaling": SCALING}},
        "select": {"maximise": "mean"},
        "controls": {"kinds": ["uniform"], "constants": 3},
        "shard_size": 4,
        "resources": {"pool": "local"},
    }
    return write_spec(ground, fields)


def test_a_run_has_accuracies_and_margins_and_resumes(ground: Path) -> None:
    lines, spec = Lines(ground, {}), spec_of(ground)
    status, output = lines("validate", spec)
    assert status == 0, output
    status, output = lines.run(spec, ground / "run")
    assert status == 0, output
    margins = {(r["recipe_id"], r["split"]): r["margins"] for r in table(ground / "run" / "margins" / "facts.parquet")}
    samples = {(r["recipe_id"], r["split"]): r["outcomes"] for r in table(ground / "run" / "samples" / "facts.parquet")}
    assert margins.keys() == samples.keys() and len(margins) > 8
    for key, values in margins.items():
        assert np.array_equal(np.array(values) < 0, np.array(samples[key]) == 1) and len(values) == 12
    assert "facts" in (ground / "run" / "report.md").read_text()
    before = tables(ground / "run")
    journal = ground / "run" / "journal.jsonl"
    cut = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(cut[: len(cut) * 2 // 3]))
    status, output = lines.run(spec, ground / "run")
    assert status == 0, output
    assert tables(ground / "run") == before
    again = {(r["recipe_id"], r["split"]): r["margins"] for r in table(ground / "run" / "margins" / "facts.parquet")}
    assert again == margins


def table(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found
