"""Proves that a CLIP with a ResNet runs from spec to export, and that the exported file scores as the tables say."""

import json
from pathlib import Path

import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from small_run import Lines, write_spec
from tiny_resnet_clip import TASKS, VAL, write_all

from pipeline.messages import EvalRequest
from pipeline.recipe import Recipe
from pipeline.spec.load import parse_spec
from pipeline.workers.worker import Worker
from tasks.base import TaskRequest
from tasks.batch_norm import is_statistic
from tasks.loading import load_task
from tasks.vision.clip.backbone import build

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and exports of a merge and of an unscaled expert."""
    folder = tmp_path_factory.mktemp("resnet")
    spec = write_all(folder)
    spec["arms"]["whole"] = {"edit": "frames", "scaling": {"alpha": {"grid": [1.0, 1.5]}}}
    lines = Lines(folder, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINES_SWEEP_CACHE", str(folder / "cache"))
        status, output = lines("run", write_spec(folder, spec), "--out", folder / "run")
        assert status == 0, output
        for arm, words in {"half": (), "whole": ("--expert", "frames", "--point", "alpha=1")}.items():
            status, output = lines("export", folder / "run", "--arm", arm, *words, "-o", folder / arm)
            assert status == 0, output
        yield folder


def test_the_export_has_the_bits_of_a_worker(folder: Path) -> None:
    worker = Worker("one", parse_spec(json.loads((folder / "run" / "provenance.json").read_text())["spec"]))
    worker.evaluate(EvalRequest(Recipe.make("sum", "constant", 0.5), "id", TASKS[0], "val", 0, 0, 4))
    exported = load_file(folder / "half" / "open_clip_model.safetensors")
    expected = worker.backbone.module.state_dict()
    assert all(torch.equal(exported[f"visual.{name}"], tensor) for name, tensor in expected.items())
    base = load_file(folder / "base.safetensors")
    assert not torch.equal(exported["visual.bn1.running_var"], base["visual.bn1.running_var"])


def test_the_exported_file_scores_as_the_tables_say(folder: Path) -> None:
    table = pq.read_table(folder / "run" / "scores.parquet").to_pylist()
    values = {r["task"]: r["value"] for r in table if (r["arm"], r["split"]) == ("half", "test")}
    state = load_file(folder / "half" / "open_clip_model.safetensors")
    backbone = build(str(folder / "model.json"), state, CPU, torch.float32)
    for name in TASKS:
        task = load_task(TaskRequest(name, str(folder / name)), backbone)
        assert task.evaluate(backbone, "test", 0, 20).stats.mean == values[name]
    model = open_clip.create_model(f"local-dir:{folder / 'half'}")
    assert torch.equal(model.visual.bn1.running_var, state["visual.bn1.running_var"])


def test_an_unscaled_expert_is_exported_with_the_statistics_of_its_file(folder: Path) -> None:
    exported, expert = (load_file(folder / p) for p in ("whole/open_clip_model.safetensors", "frames.safetensors"))
    names = [name for name in expert if is_statistic(name)]
    assert all(torch.equal(exported[n.replace("module.", "visual.")], expert[n]) for n in names) and len(names) > 20
    assert "those of the stored model" in (folder / "whole" / "README.md").read_text()


def test_card_provenance_and_report_name_the_images(folder: Path) -> None:
    count = len(TASKS) * VAL
    sentence = f"statistics of batch normalisation: measured on {count} validation images of the run's tasks"
    assert sentence in (folder / "half" / "README.md").read_text()
    facts = json.loads((folder / "half" / "recipe.json").read_text())
    parts = {part["what"]: part for part in facts["coverage"]}
    measured = parts[f"measured on {count} images, as statistics of batches"]
    assert "layer4.0.bn3.running_var" in measured["names"] and sentence.endswith(
        facts["statistics_of_batch_normalisation"]
    )
    assert all("num_batches" in name for name in parts["no weights, so they stay the base's"]["names"])
    provenance = json.loads((folder / "run" / "provenance.json").read_text())
    assert provenance["calibration"] == dict.fromkeys(TASKS, VAL)
    assert "Statistics of batch normalisation" in (folder / "run" / "report.html").read_text()
