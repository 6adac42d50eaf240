"""Proves that `lines run` scores candidates by tasks of lm-eval with local data, and that the spec is checked first."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lm_eval_tasks import write_tasks
from safetensors.torch import load_file, save_file
from small_run import Lines, rows
from tiny_language import write_tiny_llama

pytest.importorskip("lm_eval")
COUNT = 12


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two experts and tasks, in the folder of the spec."""
    folder = tmp_path_factory.mktemp("language")
    write_tiny_llama(folder / "base", layers=2, hidden=16)
    state = {k: v if "norm" in k else 5 * v for k, v in load_file(folder / "base/model.safetensors").items()}
    save_file(state, folder / "base/model.safetensors", metadata={"format": "pt"})
    for seed, name in enumerate(("colours", "kinds")):
        noise = torch.Generator().manual_seed(seed)
        tuned = {k: v + 0.3 * v.std() * torch.randn(v.shape, generator=noise) for k, v in state.items()}
        save_file(tuned, folder / f"{name}.safetensors", metadata={"format": "pt"})
    write_tasks(folder / "tasks", COUNT)
    return folder


def write_spec(folder: Path, **changes: Any) -> Path:
    own = {"include_path": "tasks"}
    spec = {
        "name": "own-tasks",
        "backbone": {"family": "causal", "model": "base"},
        "base": "base",
        "experts": {"colours": "colours.safetensors", "kinds": "kinds.safetensors"},
        "tasks": {
            "colours": {"source": "lm_eval/tiny_choices", "options": {**own, "metric": "acc_norm", "num_fewshot": 1}},
            "kinds": {"source": "lm_eval/tiny_answers", "options": {**own, "filter": "word"}},
        },
        "ood": {
            "other": {"source": "lm_eval/tiny_one_split", "options": own},
            "texts": {"source": "lm_eval/tiny_texts", "options": own, "limits": {"test": 4}},
        },
        "arms": {"sum": {"merge": "sum", "scaling": {"alpha": {"grid": [0.0, 0.5]}}}},
        "limits": {"val": 8},
        "shard_size": 6,
        "resources": {"pool": "local"},
        **changes,
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def test_a_run_scores_each_split_of_each_task(files: Path, tmp_path: Path) -> None:
    """The base gets lm-eval's own values of each document, between 0 and 1."""
    status, output = Lines(tmp_path, {})("run", write_spec(files), "--out", tmp_path / "run", "--no-cache")
    assert status == 0, output
    scores = rows(tmp_path / "run", "scores")
    sizes = {(s["task"], s["split"]): s["n"] for s in scores}
    assert sizes == {
        ("colours", "val"): 8,
        ("colours", "test"): COUNT,
        ("kinds", "val"): 8,
        ("kinds", "test"): COUNT,
        ("other", "test"): COUNT,
        ("texts", "test"): 4,
    }
    assert {s["task"]: s["metric"] for s in scores} == {
        **dict.fromkeys(("colours", "kinds", "other"), "accuracy"),
        "texts": "bits_per_byte",
    }
    report = (tmp_path / "run/report.md").read_text()
    assert "OOD (bits per byte)" in report or "each shifted task (bits per byte)" in report
    margins = rows(tmp_path / "run/margins", "colours")
    assert len(margins) == len(rows(tmp_path / "run/samples", "colours"))
    base = next(s for s in scores if s["arm"] == "pre-trained" and (s["task"], s["split"]) == ("kinds", "val"))
    values = np.array(own_values(files, "tiny_answers", "word", "letters", "validation")[:8], np.float32)
    assert base["value"] == pytest.approx(values.mean(), abs=1e-6)
    kept = next(r for r in rows(tmp_path / "run/samples", "kinds") if r["recipe_id"] == base["recipe_id"])
    np.testing.assert_array_equal(np.array(kept["outcomes"], np.float32), values)
    assert 0 < values.mean() < 1 and not set(values.tolist()) <= {0.0, 1.0}
    numerics = json.loads((tmp_path / "run/provenance.json").read_text())
    assert "transformers" in json.dumps(numerics)


def own_values(files: Path, name: str, filtered: str, metric: str, split: str) -> list[float]:
    """Return what lm-eval itself finds for each document of a split."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(files / "tasks")
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
        manager = TaskManager(include_defaults=False, include_path=str(files / "tasks"))
        wanted = manager.load([name])["tasks"][name]
        wanted.config.test_split = split
        model = HFLM(pretrained=str(files / "base"), device="cpu", batch_size=16)
        found = lm_eval.simple_evaluate(model, tasks=[wanted], bootstrap_iters=0)
    assert found is not None
    return [s[metric] for s in found["samples"][name] if s["filter"] == filtered]


def test_validate_names_what_is_missing_before_models_are_read(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown names, lost data, and a set of the hub that does not answer; code next to YAML files is announced."""
    monkeypatch.setattr("tasks.language.lm_eval.assembly.hub_silence", lambda: "no network in tests")
    far = {"source": "lm_eval/tiny_choicess", "options": {"include_path": "tasks"}}
    lost = {"source": "lm_eval/tiny_lost", "options": {"include_path": "tasks"}}
    (files / "tasks/lost.yaml").write_text(
        "include: choices.yaml\ntask: tiny_lost\ndataset_kwargs: {data_files: {test: lost/test.jsonl}}\n"
    )
    tasks = {"colours": far, "kinds": lost, "wiki": "lm_eval/wikitext"}
    path = write_spec(files, tasks=tasks, experts={"colours": "none.st", "kinds": "none.st"})
    status, output = Lines(tmp_path, {})("validate", path)
    assert status == 2
    assert "tasks.colours: lm_eval/tiny_choicess: unknown task of lm-eval 'tiny_choicess'; did you mean" in output
    assert "tasks.kinds: lm_eval/tiny_lost: its data set json is not at hand" in output
    assert (
        "tasks.wiki: lm_eval/wikitext: its data set EleutherAI/wikitext_document_level wikitext-2-raw-v1 is" in output
    )
    assert "load it once where the hub answers, with `lines prepare`, and copy the caches" in output
    assert "experts.colours: none.st" in output
    assert f"tasks.colours.options.include_path: {files / 'tasks'}" in output
    status, output = Lines(tmp_path, {})("validate", write_spec(files))
    assert status == 0, output
    assert "16 validation and 40 test samples" in output


def test_a_plan_counts_samples_and_the_memory_of_the_longest_batch(files: Path, tmp_path: Path) -> None:
    """16 requests a batch, about 60 tokens each: logits of 300 words, and their log-softmax, are 2.3 MB."""
    status, output = Lines(tmp_path, {})("plan", write_spec(files))
    assert status == 0, output
    found = re.search(r"activations of a batch\W+([\d.]+) MiB", output)
    assert found and 2 < float(found[1]) < 20, output


def test_methods_that_learn_from_images_are_refused(files: Path, tmp_path: Path) -> None:
    path = write_spec(files, arms={"fisher": {"merge": "fisher"}})
    status, output = Lines(tmp_path, {})("validate", path)
    assert status == 2
    assert "arms.fisher.merge.method: fisher learns from labelled images, which a model of family causal" in output
