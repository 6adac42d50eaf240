"""Proves that `lines validate` accepts valid specs of trainings, and names at once all that others lack."""

from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import yaml
from PIL import Image
from small_finetune import write_finetune
from small_ppo import write_ppo
from typer.testing import CliRunner

from pipeline.cli.main import app


def validate(spec: Path) -> tuple[int, str]:
    """Return the exit status of `lines validate`, and its output on one line."""
    found = CliRunner().invoke(app, ["validate", str(spec)], catch_exceptions=False)
    return found.exit_code, " ".join(found.output.split())


def write_images(root: Path) -> Path:
    """Write 8 images of each of two classes to train on, and 4 to measure on."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def test_a_valid_spec_of_ppo(ground: Path, tmp_path: Path) -> None:
    status, output = validate(write_ppo(tmp_path, ground))
    assert status == 0 and f"valid: {tmp_path}/ppo.yaml, for lines ppo".replace(" ", "") in output.replace(" ", "")
    assert "sft │ sft │ 4" in output and "vowels │ ppo on vowels │ 4" in output and "near │ ppo on near │ 4" in output


def test_a_valid_spec_of_a_fine_tuning(tmp_path: Path) -> None:
    spec = write_finetune(tmp_path, tasks={"pets": str(write_images(tmp_path / "pets"))})
    status, output = validate(spec)
    assert status == 0 and f"valid: {spec}, for lines finetune".replace(" ", "") in output.replace(" ", ""), output
    assert "full/pets │ full │ 6" in output and "lora/pets │ lora │ 6" in output


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"base": "data/llama", "prompts": {"source": "embedded/pakages"}},
            ("base: data/llama: no such folder", "prompts.source: embedded/pakages: no such embedded model or prompts"),
        ),
        (
            {"base": "embedded/smollm", "rewards": {"r": {"source": "reward/plainnes"}}},
            (
                "base: embedded/smollm: no such embedded model or prompts; did you mean 'smollm2'?",
                "did you mean 'plain",
            ),
        ),
    ],
)
def test_all_that_a_spec_of_ppo_lacks_is_named_at_once(
    ground: Path, tmp_path: Path, changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    status, output = validate(write_ppo(tmp_path, ground, **changes))
    assert status == 2 and all(text in output for text in expected), output


def test_all_that_a_spec_of_a_fine_tuning_lacks_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LINES_SWEEP_DATA", str(tmp_path / "data"))
    changes = {"base": "pretrained:openai", "tasks": {"MNIST": "vision/MNIST", "DTD": "vision/DTD"}}
    spec = write_finetune(tmp_path, **changes, backbone={"family": "open_clip", "model": "ViT-B-32-quickgelu"})
    status, output = validate(spec)
    expected = ("tasks.MNIST: vision/MNIST: no folder", "tasks.DTD: vision/DTD: no", "base: ViT-B-32-quickgelu/openai:")
    assert status == 2 and all(text in output for text in expected), output


def test_a_part_of_a_spec_lacks_the_fields_of_a_run(tmp_path: Path) -> None:
    part = tmp_path / "part.yaml"
    part.write_text(yaml.safe_dump({"base": "embedded/base", "experts": {"mnist": "embedded/mnist"}}))
    status, output = validate(part)
    assert status == 2 and "name: is required" in output and "tasks: is required" in output
