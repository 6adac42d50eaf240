"""Proves that a recipe exported for mergekit gives the tensors of the candidate, and that others are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline.checkpoints.blocks import find_blocks
from pipeline.checkpoints.merge_files import merge_files
from pipeline.checkpoints.mergekit.merge import merge_recipe
from pipeline.checkpoints.mergekit.schedule import read_schedule
from pipeline.checkpoints.prepared_merge import MergeSources
from pipeline.export.mergekit import MergekitModels, mergekit_recipe, mergekit_source
from pipeline.merging.scaling import Coefficients
from pipeline.recipe import Recipe

MERGEKIT = Path(__file__).parents[2] / "data" / "mergekit"
EXPERTS = [str(MERGEKIT / f"expert{i}") for i in range(3)]


def models(**changes: Any) -> MergekitModels:
    names = list(load_file(MERGEKIT / "base" / "model.safetensors"))
    layers, _ = find_blocks(names, None)
    outside = [name for name in names if name not in layers.blocks]
    fields = {"experts": EXPERTS, "precision": "float32", "layers": layers, "outside": outside, **changes}
    return MergekitModels(str(MERGEKIT / "base"), **fields)


TIES = {"trim": "tensor", "keep": 29, "aggregate": "sum", "rescale": "l1"}


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.make("sum", "linear", 0.2, 0.5),
        Recipe.make("sum", "reversed:linear", 0.2, 0.5),
        Recipe.make("average", "piecewise", 0.1, 1, (1, 0, 1), {"knots": (0.0, 0.7, 0.2)}),
        Recipe.make("weighted", "constant", 0.9, 0, (0.3, -0.2, 0.1), {"aggregate": "mean"}),
        Recipe.make("sum", "quadratic", 0.3, 0.4, (), {"lambda_outside": 0}),
        Recipe.make("sum", "constant", 0.3, 0, (), {"lambda_outside": 0.5}),
        Recipe.make("single", "uniform:sqrt", 0.2, 0.8, (0, 1, 0)),
        Recipe.make("ties", "linear", 0.3, 0.6, (1, 0.5, 0.25), TIES),
        Recipe.make("breadcrumbs", "linear", 0.3, 0.6, (), {"round": "down", "keep": 29, "top": 7}),
        Recipe.make("breadcrumbs_ties", "constant", 1, 0, (), {"round": "down", "keep": 60, "aggregate": "mean"}),
        Recipe.make("model_stock", params={"negative": "keep", "by": "rows"}),
        Recipe.make("slerp", weights=(0, 1, 1), params={"t": 0.3}),
        Recipe.make("nuslerp", weights=(0.3, 0, 0.5), params={"by": "columns", "between": "weights"}),
        Recipe.make("nuslerp", weights=(0.3, 0.2, 0)),
        Recipe.make("multislerp", weights=(0.3, 0.2, 0.9), params={"between": "weights"}),
        Recipe.make("karcher", weights=(1, 0, 1), params={"max_iter": 3}),
        Recipe.make("sce", weights=(1, 0, 1), params={"density": 0.4, "equal_below": 1e-6}),
        Recipe.make("nearswap", weights=(0, 1, 0), params={"t": 0.01}),
        Recipe.make("arcee_fusion", weights=(0, 1, 0)),
    ],
    ids=str,
)
def test_the_recipe_gives_the_candidates_tensors(recipe: Recipe, tmp_path: Path) -> None:
    merged = merge_files(MergeSources(str(MERGEKIT / "base"), EXPERTS), recipe, tmp_path / "ours.safetensors").merged
    path = tmp_path / "recipe.yml"
    path.write_text(mergekit_recipe(recipe, merged.lambdas, models()))
    merge_recipe(read_schedule(path), tmp_path / "theirs.safetensors")
    ours, theirs = (load_file(tmp_path / f"{name}.safetensors") for name in ("ours", "theirs"))
    assert all(torch.allclose(theirs[name], tensor, rtol=1e-5, atol=4e-7) for name, tensor in ours.items())


def test_lines_is_a_list_with_a_value_for_each_layer() -> None:
    lambdas = Coefficients(0.2, (0.2, 0.3, 0.5, 0.9))
    content = yaml.safe_load(mergekit_recipe(Recipe.make("sum", "quadratic", 0.2, 0.7), lambdas, models()))
    assert content["parameters"] == {"lambda": [0.2, 0.3, 0.5, 0.9]}
    assert content["models"][0] == {"model": EXPERTS[0], "parameters": {"weight": 1.0}}
    assert (content["merge_method"], content["dtype"], content["out_dtype"]) == (
        "task_arithmetic",
        "float32",
        "float32",
    )
    lambdas = Coefficients(0.4, lambdas.blocks)
    content = yaml.safe_load(mergekit_recipe(Recipe.make("sum", "quadratic", 0.2, 0.7), lambdas, models()))
    assert content["parameters"]["lambda"] == [
        {"filter": "layers.", "value": [0.2, 0.3, 0.5, 0.9]}, {"value": 0.4}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe.make("ties", alpha=0.5), "trim is vector, but mergekit trims each parameter by itself: search the arm"),
        (Recipe.make("breadcrumbs"), "round is up, but mergekit rounds the number of entries down"),
        (Recipe.make("model_stock"), "negative is zero, but mergekit keeps negative cosines"),
        (Recipe.make("sce"), "equal_below is 0.0, but mergekit gives small task vectors equal weights: search the arm"),
        (Recipe.make("dare"), "no recipe of mergekit gives what dare gives: mergekit draws other random numbers"),
        (Recipe.make("tsvm"), "no recipe of mergekit gives what tsvm gives: mergekit has no such method"),
        (Recipe.make("slerp", "linear", 0.5, 0.5, (1, 1, 0)), "slerp of mergekit gives a whole model, but lambda"),
        (
            Recipe.make("sum").followed_by([("norm_match", {"by": "whole"}), ("norm_match", {})]),
            "mergekit has no steps after a merge, but this candidate has norm_match:by=whole, norm_match",
        ),
        (Recipe.make("sum", params={"component.mlp": 0.5}), "this candidate has factors of components, for which"),
        (Recipe.make("nuslerp", weights=(1, 0, 0)), "nuslerp of mergekit takes two models at least, got 1"),
    ],
)
def test_what_mergekit_cannot_do_is_an_error(recipe: Recipe, message: str) -> None:
    lambdas = Coefficients(0.5, (0.5, 0.6, 0.7, 0.8)) if recipe.beta else Coefficients(1.0, (1.0,) * 4)
    with pytest.raises(ValueError, match=message):
        mergekit_recipe(recipe, lambdas, models())


def test_names_that_no_filter_tells_apart_are_an_error() -> None:
    lambdas = Coefficients(0.4, (0.2, 0.3, 0.5, 0.9))
    with pytest.raises(ValueError, match="no filter tells them apart by their names"):
        mergekit_recipe(Recipe.make("sum", "linear", 0.2, 0.7), lambdas, models(outside=["vision.layers.norm"]))


def test_models_are_named_as_mergekit_reads_them(tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert mergekit_source(str(tmp_path), "owner/repo") == f"owner/repo+{tmp_path}"
    assert mergekit_source("hf:owner/repo@main") == "owner/repo@main"
    assert mergekit_source(EXPERTS[0]) == str(Path(EXPERTS[0]).resolve())
    with pytest.raises(ValueError, match="mergekit reads folders with a config.json"):
        mergekit_source(f"{EXPERTS[0]}/model.safetensors")
    with pytest.raises(ValueError, match="must be hf:OWNER/REPO"):
        mergekit_source("hf:owner/repo/model.safetensors")
