"""Proves a run of language models on text tasks from spec to tables: choices, margins, resuming, encoder passes."""

import json
import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_run import Lines, tables, write_spec
from tiny_language import row, t5_config, write_tiny_llama, write_tiny_seq2seq

from pipeline.loading.prepare import prepare
from pipeline.messages import EvalRequest, ShardScore
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.run.run import run
from pipeline.spec.load import load_spec
from pipeline.workers.worker import Worker

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
    if request.param == "causal":
        documents = [row(i)["source"][: 30 + 9 * (i % 7)] for i in range(30, 60)]
        (folder / "wiki.txt").write_text("\n\n".join(documents), encoding="utf-8")
    write_rows(folder / "facts-rows")
    write_rows(folder / "spans-rows")
    return folder


def spec_of(ground: Path, **changes: Any) -> Path:
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
        **changes,
    }
    if fields["backbone"]["family"] == "causal":  # both experts have one target, so that the only control is a text
        fields["targets"] = {"spans": "facts"}
        fields["tasks"]["wiki"] = {"source": "wiki.txt", "options": {"metric": "bits_per_byte", "val_fraction": 0.5}}
        del fields["tasks"]["spans"]
        fields["arms"]["LiNeS"] = {
            "edit": "each_expert",
            "scaling": {**SCALING, "alpha": {"grid": [0.2, 0.6]}, "beta": 0.4},
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
    report = (ground / "run" / "report.md").read_text()
    assert "facts" in report
    if ground.name.startswith("causal"):
        check_bits(ground / "run", report)
        check_recipe_of_mergekit(lines, ground)
    before = tables(ground / "run")
    journal = ground / "run" / "journal.jsonl"
    cut = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(cut[: len(cut) * 2 // 3]))
    status, output = lines.run(spec, ground / "run")
    assert status == 0, output
    assert tables(ground / "run") == before
    again = {(r["recipe_id"], r["split"]): r["margins"] for r in table(ground / "run" / "margins" / "facts.parquet")}
    assert again == margins


def check_recipe_of_mergekit(lines: Lines, ground: Path) -> None:
    """Check that the recipe of mergekit of what an arm chose gives the exported weights."""
    words = ("export", ground / "run", "--arm", "sum + LiNeS", "--point", "beta=1")
    status, output = lines(*words, "-o", ground / "exported")
    assert status == 0, output
    status, output = lines(*words, "--mergekit", "-o", ground / "exported.yml")
    assert status == 0 and "a recipe of mergekit" in output, output
    status, output = lines("merge", "--recipe", ground / "exported.yml", "-o", ground / "merged.safetensors")
    assert status == 0, output
    ours, theirs = load_file(ground / "exported" / "model.safetensors"), load_file(ground / "merged.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], tensor, atol=1e-6) for name, tensor in theirs.items())
    status, output = lines(*words, "--mergekit", "-o", ground / "exported.yml")
    assert status == 2 and "--output: with --mergekit it must be a new .yml or .yaml file" in output, output


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"choices": ["data", "tools", "data"]}, r"tasks\.facts: \S+val\.jsonl: row 1: its choices repeat: \['data'\]"),
        (
            {"prompt": "word " * 300},
            r"row 1: its prompt has \d+ tokens, and the model takes at most \d+, besides \d+ for",
        ),
        (
            "wiki.txt",
            r"experts\.facts: its target facts is measured in bits_per_byte, which can be a control",
        ),
    ],
    ids=["choices that repeat", "a long prompt", "a text as target"],
)
@pytest.mark.parametrize("ground", ["causal"], indirect=True)
def test_bad_rows_are_named_by_validate(ground: Path, task: Any, message: str) -> None:
    path = spec_of(ground)
    fields = yaml.safe_load(path.read_text())
    fields["tasks"]["facts"] = {"source": task, "options": {"metric": "bits_per_byte"}}
    if isinstance(task, dict):
        (ground / "bad").mkdir(exist_ok=True)
        for split in ("val", "test"):
            (ground / "bad" / f"{split}.jsonl").write_text(
                json.dumps({"prompt": "p", "choices": CHOICES, "label": 0} | task)
            )
        fields["tasks"]["facts"] = "./bad"
    status, output = Lines(ground, {})("validate", write_spec(ground, fields))
    assert status == 2 and re.search(message, output), output


class CountingWorker(Worker):
    """Counts passes of the encoder by split and merge method."""

    passes: Counter[tuple[str, str]]

    def evaluate(self, request: EvalRequest) -> ShardScore:
        def count(*of: object) -> None:
            self.passes[request.split, request.recipe.method] += 1

        module: Any = self.backbone.module
        handle = module.get_encoder().register_forward_hook(count)
        try:
            return super().evaluate(request)
        finally:
            handle.remove()


@pytest.mark.parametrize("ground", ["seq2seq"], indirect=True)
def test_a_grid_runs_the_encoder_once_an_alpha_and_batch(ground: Path, tmp_path: Path) -> None:
    grid = {"alpha": {"grid": [0.3, 0.6]}, "beta": {"grid": [0.2, 0.6, 1]}}
    made = {}
    for limit in (1, 0):
        backbone = {"family": "seq2seq", "model": "base", "options": {"encoder_memory": limit}}
        arms = {"LiNeS": {"merge": "sum", "scaling": {"function": "linear", **grid}}}
        path = spec_of(ground, backbone=backbone, arms=arms, controls=[])
        spec = load_spec(path)
        worker = CountingWorker("local", spec)
        worker.passes = Counter()
        identity = prepare(spec, "cpu", lambda what, done, total: None)
        run(make_plan(spec), identity, tmp_path / str(limit), partial(LocalPool, worker), None)
        made[limit] = worker.passes["val", "sum"]
        planned = Lines(ground, {})("plan", path)[1]
        assert ("kept outputs of the encoder" in planned) == bool(limit), planned
    # Batches of 5 of 12 samples and one of 12; shards of 4, of which 2 of 3 read two batches of 5.
    assert made == {1: 2 * (3 + 1), 0: 6 * (5 + 3)}
    kept, plain = (tables(tmp_path / name) for name in ("1", "0"))
    assert kept == plain


def check_bits(run: Path, report: str) -> None:
    """A text as the only control: base / value counts in the objective, and lower is better in the report."""
    scores = [r for r in table(run / "scores.parquet") if r["split"] == "val"]
    of = {(r["arm"], r["group"], r["number"], r["task"]): r for r in scores}
    base = of["pre-trained", "", 0, "wiki"]["value"]
    assert of["pre-trained", "", 0, "wiki"]["metric"] == "bits_per_byte" and base > 1
    judged = [r for r in table(run / "candidates.parquet") if r["arm"] in ("LiNeS", "sum + LiNeS")]
    for r in judged:
        key = (r["arm"], r["group"], r["number"])
        gain = base / of[*key, "wiki"]["value"]
        assert of[*key, "wiki"]["normalised"] == pytest.approx(gain)
        assert r["objectives"] == pytest.approx([(of[*key, "facts"]["normalised"] + gain) / 2])
    assert len(judged) == 6
    (sizes,) = (r["sizes"] for r in table(run / "sizes" / "wiki.parquet") if r["split"] == "val")
    assert len(sizes) == of["pre-trained", "", 0, "wiki"]["n"] and sizes == sorted(sizes)
    for words in ("control (bits per byte), normalised", "Bits per byte: lower is better.", "Target against control"):
        assert words in report, words
    assert "control normalised (%)" in (run / "report.html").read_text()


def table(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found
