"""Proves that mergekit itself and `lines` make the same model of one recipe, both ways; needs mergekit-yaml on PATH."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_language import write_adapter, write_tiny_llama
from typer.testing import CliRunner

from pipeline.checkpoints.blocks import find_blocks
from pipeline.cli.main import app
from pipeline.export.mergekit import MergekitModels, mergekit_recipe, mergekit_source
from pipeline.merging.scaling import Coefficients
from pipeline.recipe import Recipe

PROGRAM = shutil.which("mergekit-yaml")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="mergekit-yaml is not on PATH: pip install mergekit==0.1.5")
RECIPE = """\
merge_method: ties
base_model: base
models:
- model: maths
  parameters: {weight: [0.2, 0.9], density: [{filter: mlp, value: 0.4}, {value: [1, 0.3]}]}
- {model: base+policy, parameters: {weight: 0.4, density: 0.6}}
parameters: {lambda: [0.5, 1.1, 0.8], normalize: false}
dtype: float32
out_dtype: bfloat16
"""


def merge_both(folder: Path, recipe: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return what mergekit makes of a recipe, and what `lines merge` does."""
    (folder / "recipe.yml").write_text(recipe)
    assert PROGRAM is not None
    words = [PROGRAM, "recipe.yml", "theirs", "--lora-merge-cache", "cache", "--no-write-model-card"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = CliRunner().invoke(app, ["merge", "--recipe", f"{folder}/recipe.yml", "-o", f"{folder}/ours/"])
    assert result.exit_code == 0, result.output
    theirs, ours = (load_file(folder / name / "model.safetensors") for name in ("theirs", "ours"))
    assert theirs.keys() == ours.keys()
    return theirs, ours


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for seed, name in enumerate(("base", "maths")):
        write_tiny_llama(tmp_path / name, layers=3, seed=seed)
    write_adapter(tmp_path / "policy", tmp_path / "base", seed=2)
    return tmp_path


def test_a_recipe_gives_both_the_same_model(models: Path) -> None:
    theirs, ours = merge_both(models, RECIPE)
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype == torch.bfloat16
        assert torch.allclose(ours[name].float(), tensor.float(), rtol=8e-3, atol=1e-6), name  # a bit of bfloat16
        assert (ours[name] != tensor).float().mean() < 0.01


def test_an_exported_recipe_gives_both_the_same_model(models: Path) -> None:
    layers, _ = find_blocks(load_file(models / "base" / "model.safetensors"), None)
    base = mergekit_source(str(models / "base"))
    experts = [mergekit_source(str(models / name), base) for name in ("maths", "policy")]
    outside = [name for name in load_file(models / "base" / "model.safetensors") if name not in layers.blocks]
    recipe = Recipe.make("weighted", "reversed:linear", 0.2, 0.5, (0.7, 0.4))
    lambdas = Coefficients(0.2, (0.7, 0.45, 0.2))
    theirs, ours = merge_both(
        models, mergekit_recipe(recipe, lambdas, MergekitModels(base, experts, "float32", layers, outside))
    )
    assert all(torch.allclose(ours[name], tensor, atol=1e-6) for name, tensor in theirs.items())
