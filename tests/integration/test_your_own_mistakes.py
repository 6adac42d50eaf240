"""Proves that a new user's mistakes give errors that explain what to do, before anything is evaluated."""

import argparse
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from own_models import COLOURS, Trainer, visual, write_images
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from pipeline.cli.main import app
from tasks.vision.folders import FolderSource


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a user's files: correct ones, and one for each mistake."""
    folder = tmp_path_factory.mktemp("models")
    base = Trainer(folder / "base").state()
    save_file(base, folder / "base" / "base.safetensors")
    tuned = {n: t * 1.01 if n.startswith("visual.") else t for n, t in base.items()}
    save_file(tuned, folder / "tuned.safetensors")
    save_file(visual(base), folder / "image_tower.safetensors")
    apart = Trainer(folder / "apart", seed=5).state()
    save_file(apart, folder / "apart.safetensors")
    save_file(visual(apart), folder / "apart_tower.safetensors")
    write_pickles(folder, base, tuned)
    return folder


def write_pickles(folder: Path, base: dict[str, Tensor], tuned: dict[str, Tensor]) -> None:
    authors = {f"model.{n}": t for n, t in base.items() if not n.startswith("transformer.")}
    torch.save(authors, folder / "authors.pt")
    torch.save({"model": tuned, "args": argparse.Namespace(lr=1e-5)}, folder / "arguments.pt")
    torch.save({"net": tuned, "optimizer": {}}, folder / "net.pth.tar")
    torch.save({"state_dict": {f"clip.{n}": t for n, t in tuned.items()}, "epoch": 3}, folder / "lightning.ckpt")
    torch.save({**{f"module.{n}": t for n, t in tuned.items()}, "n_averaged": torch.tensor(5)}, folder / "swa.pt")
    torch.save({**tuned, "attn_mask": torch.full((7, 7), -torch.inf)}, folder / "mask.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "whole.pt")
    torch.save({"first": tuned, "second": base}, folder / "several.pt")
    torch.save({f"{n[0]}.{n}": t for n, t in tuned.items()}, folder / "unknown.pt")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    factors = {"base_model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 64)}
    save_file(factors, folder / "adapter" / "adapter_model.safetensors")


def validate(folder: Path, models: Path, **changes: Any) -> tuple[int, str]:
    """Run `lines validate` on a spec of one expert and one task, with `changes`; paths start at `models`."""
    spec = {
        "name": "mistakes",
        "backbone": {"family": "open_clip", "model": "base/open_clip_config.json"},
        "base": "base/base.safetensors",
        "experts": {"colours": "tuned.safetensors"},
        "tasks": {"colours": "./colours"},
        "arms": {"fine-tuned": {"edit": "each_expert"}},
    }
    if not (models / "colours").is_dir():
        write_images(models / "colours", "colours", 8, seed=0)
    path = models / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(spec | changes))
    result = CliRunner().invoke(app, ["validate", str(path)])
    return result.exit_code, " ".join(result.output.split())


def expert(file: str) -> dict[str, Any]:
    return {"experts": {"colours": file}}


def model(name: str) -> dict[str, Any]:
    return {"backbone": {"family": "open_clip", "model": name}}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a LoRA adapter": (
        expert("adapter"),
        "adapter_config.json: peft_type: must be LORA, got None; load it with peft",
    ),
    "a LoRA file": (expert("adapter/adapter_model.safetensors"), "holds the factors of a LoRA adapter"),
    "a whole model": (expert("whole.pt"), "would run code (torch.nn.modules.linear.Linear); if you trust the file"),
    "several models": (expert("several.pt"), "holds several models: 'first', 'second'; load the file and save"),
    "unknown prefixes": (expert("unknown.pt"), "none of its names is known: only a prefix that all names share"),
    "the base for an expert": (
        expert("base/base.safetensors"),
        "has the weights of the base",
    ),
    "another base": (expert("apart.safetensors"), "of the text tower differ from the base's"),
    "a folder of many files": (expert("."), "or name one of its files, such as apart.safetensors"),
    "a misspelt file": (expert("tund.safetensors"), "no such file"),
    "a base without text": ({"base": "image_tower.safetensors"}, "give the whole model, for example pretrained:openai"),
    "the authors' file as base": ({"base": "authors.pt"}, "or a text tower without its transformer"),
    "a repository without hf:": ({"base": "openai/clip-vit"}, "a repository of the hub is written hf:openai/clip-vit"),
    "OpenAI's way to write it": (model("ViT-B/32"), "did you mean 'ViT-B-32'"),
    "a repository as architecture": (model("openai/clip-vit"), "OpenAI's is ViT-B-32-quickgelu"),
    "another architecture": (model("ViT-S-32"), "base/base.safetensors: is not a checkpoint of this architecture"),
    "one class of the folder": ({"tasks": {"colours": "./colours/red"}}, "holds no class folders but 8 images"),
    "a bare folder name": ({"tasks": ["colors"], "targets": {"colours": "colors"}}, "to name a folder, write ./colors"),
    "a misspelt folder": ({"tasks": {"colours": "./colour"}}, "is not a folder, an embedded pack or a registered task"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_spec(tmp_path: Path, models: Path, mistake: str) -> None:
    changes, message = MISTAKES[mistake]
    code, output = validate(tmp_path, models, **changes)
    assert code == 2 and message in output, output


def test_a_tower_of_another_base_is_doubted(tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture) -> None:
    code, _ = validate(tmp_path, models, **expert("apart_tower.safetensors"))
    assert code == 0
    assert "experts.colours: " in caplog.text and "is this the base that it was fine-tuned from?" in caplog.text


@pytest.mark.parametrize("name", ["arguments.pt", "net.pth.tar", "lightning.ckpt", "swa.pt", "mask.pt"])
def test_files_of_training_programs_are_no_mistake(tmp_path: Path, models: Path, name: str) -> None:
    code, output = validate(tmp_path, models, **expert(name))
    assert code == 0, output


def test_half_precision_files_are_no_mistake(tmp_path: Path, models: Path) -> None:
    for name in ("base/base", "tuned"):
        state = load_file(models / f"{name}.safetensors")
        save_file({n: t.half() for n, t in state.items()}, models / f"{name}_half.safetensors")
    code, output = validate(tmp_path, models, base="base/base_half.safetensors", **expert("tuned_half.safetensors"))
    assert code == 0, output


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return write_images(tmp_path / "colours", "colours", 2, seed=0)


def test_folders_of_another_level(tmp_path: Path, colours: Path) -> None:
    with pytest.raises(ValueError, match="a level deeper .* for example colours/blue/000.png: name the folder"):
        FolderSource(tmp_path)
    for name in ("Training", "Testing"):
        shutil.copytree(colours, tmp_path / "capital" / name)
    with pytest.raises(ValueError, match="split folders must be called train, val, test"):
        FolderSource(tmp_path / "capital")


def test_images_may_lie_in_folders_within_a_class(colours: Path) -> None:
    shutil.copytree(colours / "red", colours / "red" / "more")
    assert len(FolderSource(colours).class_names) == len(COLOURS)


def test_splits_that_are_called_otherwise(tmp_path: Path, colours: Path) -> None:
    for name in ("train", "valid"):
        shutil.copytree(colours, tmp_path / "set" / name)
    with pytest.raises(ValueError, match="holds 'valid' besides .'train'.: must hold either split folders"):
        FolderSource(tmp_path / "set")


def test_classes_that_are_called_otherwise_in_another_split(
    tmp_path: Path, colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("val", "test"):
        shutil.copytree(colours, tmp_path / "set" / name)
    (tmp_path / "set" / "test" / "red").rename(tmp_path / "set" / "test" / "Red")
    with pytest.raises(ValueError, match="'Red' and 'red' have one name in prompts .*one name in every split"):
        FolderSource(tmp_path / "set")
    (tmp_path / "set" / "test" / "Red").rename(tmp_path / "set" / "test" / "crimson")
    with caplog.at_level(logging.WARNING):
        FolderSource(tmp_path / "set")
    assert "1 of 5 classes have no images in test, and stay in the prompts: red" in caplog.text


def test_empty_classes_and_other_files_are_told(colours: Path, caplog: pytest.LogCaptureFixture) -> None:
    (colours / "pink").mkdir()
    (colours / "red" / "notes.txt").write_text("red")
    FolderSource(colours)
    assert "1 of 5 classes have no images, and stay in the prompts: pink" in caplog.text
    assert "left out 1 files" in caplog.text and ".txt" in caplog.text
