"""Proves that a tower of family `vision` is fine-tuned, whole and by LoRA, and is then edited, merged and exported."""

import json
from pathlib import Path

import pytest
import torch
from small_finetune import read_finetune
from tiny_tower import state, write_images, write_tower

import lines_sweep as lines
from pipeline.train.finetune.preparation import FinetuneJob, prepare
from pipeline.train.finetune.trainer import finetune
from tasks.files.cache import cache_root

pytestmark = pytest.mark.training


def jobs(folder: Path, base: Path, images: Path) -> dict[str, FinetuneJob]:
    training = {"lr": 3e-3, "steps": 6, "batch_size": 15}
    backbone = {"family": "vision", "model": str(base)}
    tasks = {"colours": str(images)}
    spec = read_finetune(folder, backbone=backbone, base=str(base), tasks=tasks, training=training, limits={})
    return {made.name: made for made in prepare(spec, folder / "out", "cpu", lambda *_: None)}


def test_both_kinds_of_experts_learn_and_are_scored_by_the_head_of_their_training(tmp_path: Path) -> None:
    base = write_tower(tmp_path / "base")
    images = write_images(tmp_path / "images", {"train": 30, "val": 12, "test": 12})
    experts, said = {}, {}
    for name, job in jobs(tmp_path, base, images).items():
        finetune(job, lambda status: None)
        result = json.loads((job.folder / "train.json").read_text())
        experts[name.partition("/")[0]], said[name.partition("/")[0]] = str(job.folder), result["val_accuracy"]
    heads = list((cache_root() / "heads").glob("*.safetensors"))
    spec = {
        "name": "towers",
        "backbone": {"family": "vision", "model": str(base)},
        "base": str(base),
        "experts": experts,
        "targets": dict.fromkeys(experts, "colours"),
        "tasks": {"colours": str(images)},
        "arms": {"tuned": {"edit": "each_expert"}, "half": {"edit": "each_expert", "scaling": {"alpha": 0.5}}},
        "resources": {"pool": "local"},
    }
    run = lines.run(spec, tmp_path / "run")
    assert list((cache_root() / "heads").glob("*.safetensors")) == heads and len(heads) == 1
    scores = {
        row["group"]: row["value"] for row in run.scores.to_pylist() if (row["arm"], row["split"]) == ("tuned", "val")
    }
    assert scores == pytest.approx(said)
    exported = run.export("half", tmp_path / "half", expert="full")
    middle = (state(base)["layernorm.weight"] + state(Path(experts["full"]))["layernorm.weight"]) / 2
    torch.testing.assert_close(state(exported)["layernorm.weight"], middle)
    assert (exported / "preprocessor_config.json").read_text() == (base / "preprocessor_config.json").read_text()
    assert "AutoImageProcessor" in (exported / "README.md").read_text()
