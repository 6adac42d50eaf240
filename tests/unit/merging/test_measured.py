"""Proves that the measured memory of a recipe is its own, whichever recipes were measured before it."""

import torch
from torch import nn

from pipeline.merging.resident import ResidentModel
from pipeline.recipe import Recipe
from pipeline.workers.held import HeldRecipe
from pipeline.workers.measured import MeasuredRecipe
from tasks.base import LayerMap

EXPERTS = 6
TWO, ALL = (1, 0, 1, 0, 0, 0), (1,) * EXPERTS
RECIPES = (
    Recipe.make("knots", "constant", 0.5, weights=TWO),
    Recipe.make("knots", "constant", 0.5, weights=ALL),
    Recipe.make("knots", "constant", 0.5, params={"drop": 0.5}),
    Recipe.make("average", weights=(0, 1, 0, 0, 0, 0)),
    Recipe.make("sum", "linear", 0.5, 0.5),
    Recipe.make("sum", "grouped", 0, 1, params={"factors": (0.0, 1.0)}),
    Recipe.make("zero"),
    *(Recipe.make("model_stock", params={"by": by}) for by in ("rows", "tensor")),
    *(Recipe.make("sum").followed_by([("norm_match", {"by": by})]) for by in ("parameter", "whole")),
    Recipe.make("sum", "linear", 0.2, 0.5).followed_by([("svc", {})]),
)


def measured() -> MeasuredRecipe:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(48, 48) for _ in range(3)))
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    deltas = {f"e{i}": {n: 0.01 * torch.randn_like(t) for n, t in base.items()} for i in range(EXPERTS)}
    layers, cpu = LayerMap({name: int(name[0]) for name in base}, 3), torch.device("cpu")
    return MeasuredRecipe(HeldRecipe(ResidentModel(model, layers, base, deltas, cpu, torch.float32)), EXPERTS)


def test_the_memory_of_a_recipe_is_its_own() -> None:
    one = measured()
    found = [one.hold(recipe)[1] for recipe in RECIPES]
    assert found == [measured().hold(recipe)[1] for recipe in RECIPES]
    assert found[1] > found[0] > 0 and len(set(found)) >= 6, found
    assert [one.hold(recipe)[1] for recipe in reversed(RECIPES)] == found[::-1], "what is known is not measured again"
