"""Proves that a merge piece by piece has the bits of one that combines whole task vectors in memory."""

from collections.abc import Mapping

import pytest
import torch
from contracts.test_methods import CASES
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.merge import merge_states
from pipeline.merging import parameter_pieces
from pipeline.merging.components import Components
from pipeline.merging.control_constants import equal_norm
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import OF_SEVERAL, Experts
from pipeline.merging.scaling import coefficients
from pipeline.merging.task_vectors import cell_norms, layer_sizes, resolve_alpha
from pipeline.parameters import resolve
from pipeline.recipe import ParamValue, Recipe
from tasks.base import LayerMap

SHAPES = {
    "embed": (6, 5),
    "h.0.w": (4, 5),
    "h.0.b": (5,),
    "h.1.w": (4, 5),
    "h.1.k": (2, 3, 2),
    "norm": (),
    "none": (0,),
}
TYPES = {"h.0.w": torch.bfloat16, "h.1.w": torch.float16, "h.1.k": torch.float64}
LAYERS = LayerMap({"h.0.w": 0, "h.0.b": 0, "h.1.w": 1, "h.1.k": 1}, 2)
FILES = [case for case in CASES if case[0] != "zero" and METHODS[case[0]].needs not in OF_SEVERAL]


def state(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    made["h.0.w"] = (made["h.0.w"] * 4).round() / 4  # equal magnitudes, and sums that cancel out
    return {name: t.to(TYPES.get(name, t.dtype)) for name, t in made.items()}


def statistics(needs: str, seed: int) -> dict[str, Tensor]:
    entries = state(seed)
    if needs == "gram":
        return {name: t.float().T @ t.float() for name, t in entries.items() if t.ndim == 2}
    return {name: t.float().square() for name, t in entries.items()} if needs else {}


def in_memory(
    base: Mapping[str, Tensor], experts: list[dict[str, Tensor]], recipe: Recipe, needed: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Follow the formula: the vector of all tensors, then alpha, then the sum."""
    method, deltas = METHODS[recipe.method], [{n: e[n].float() - t.float() for n, t in base.items()} for e in experts]
    weights, params = (
        recipe.weights or (1,) * len(experts),
        resolve(METHODS[recipe.method].parameters, dict(recipe.params)),
    )
    vector = method.combine(Experts(deltas, base, needed), weights, params)
    alpha, sizes = recipe.alpha, layer_sizes(LAYERS, base)
    if isinstance(alpha, str):
        alpha = resolve_alpha(alpha, [d for d, w in zip(deltas, weights, strict=True) if w], vector)
    if recipe.scaling.startswith("equal_norm:"):
        alpha = equal_norm(recipe, sizes, alpha, cell_norms(LAYERS, vector, Components()))
    lambdas = coefficients(recipe, sizes, alpha)
    return {n: (lambdas.of(LAYERS.blocks.get(n), n) * vector[n] + t.float()).to(t.dtype) for n, t in base.items()}


@pytest.mark.parametrize("piece", [7, 1 << 18])
@pytest.mark.parametrize(("method", "weights", "params"), FILES)
def test_every_method_has_the_bits_of_whole_vectors(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    weights: tuple[float, ...],
    params: Mapping[str, ParamValue],
    piece: int,
) -> None:
    monkeypatch.setattr(parameter_pieces, "PIECE", piece)
    base = state(0)
    experts = [
        {n: (t.float() + d.float()).to(t.dtype) for (n, t), d in zip(base.items(), state(i, 0.3).values(), strict=True)}
        for i in (1, 2, 3)
    ]
    needed = [statistics(METHODS[method].needs, 20 + i) for i in range(3)]
    models = [Checkpoint(str(i), model, "") for i, model in enumerate([base, *experts])]
    for scaling, alpha in (("linear", "auto" if any(weights) else 0.5), ("equal_norm:linear", 0.3)):
        recipe = Recipe.make(method, scaling, alpha, 0.5, weights, params)
        if not any(weights):
            with pytest.raises(ValueError, match="0 everywhere|equal the base's"):
                merge_states(models[0], models[1:], recipe, LAYERS, needed)
            continue
        found, merged = merge_states(models[0], models[1:], recipe, LAYERS, needed)
        expected = in_memory(base, experts, recipe, needed)
        assert list(found) == list(base)
        assert all(found[n].dtype == t.dtype and torch.equal(found[n], expected[n]) for n, t in base.items())
        change = sum(float((found[n].double() - t.double()).square().sum()) for n, t in base.items()) ** 0.5
        assert merged.change == pytest.approx(change, rel=1e-7)
        assert merged.base_norm == pytest.approx(
            sum(float(t.double().square().sum()) for t in base.values()) ** 0.5, rel=1e-7
        )
