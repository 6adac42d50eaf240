"""Proves the numbers of steps after a merge, and that workers and files give them the same bits."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor
from unit.merging.test_resident import module_of, parameters

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.merge import merge_states
from pipeline.merging import parameter_pieces
from pipeline.merging.chain import Chain, by_name
from pipeline.merging.combined import Combined, CombinedCache
from pipeline.merging.low_rank import LowRank, LowRankDelta
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts
from pipeline.merging.resident import ResidentModel
from pipeline.merging.steps import STEPS
from pipeline.recipe import Recipe
from tasks.base import LayerMap, NonFiniteError

CPU = torch.device("cpu")
SHAPES = {"stem": (7,), "h.0.w": (5, 4), "h.0.b": (5,), "h.1.w": (4, 6), "head": ()}
LAYERS = LayerMap({"h.0.w": 0, "h.0.b": 0, "h.1.w": 1}, 2)


def state(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


DELTAS = [state(1, 0.3), state(2, 0.1), state(3, 0.2)]


def changed(recipe: Recipe, deltas: list[dict[str, Tensor]], combined: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    weights = recipe.weights or (1,) * len(deltas)
    found = Chain.of(recipe).change(combined, Experts(deltas), weights, by_name(LAYERS.blocks))
    return {name: tensor.double().numpy() for name, tensor in found.items()}


GROUPS = {
    "parameter": [[name] for name in SHAPES],
    "block": [["stem", "head"], ["h.0.w", "h.0.b"], ["h.1.w"]],
    "whole": [list(SHAPES)],
}


@pytest.mark.parametrize("by", GROUPS)
def test_norm_match_gives_each_group_the_mean_norm_of_the_experts_that_take_part(by: str) -> None:
    combined = state(9)
    recipe = Recipe.make("weighted", weights=(0.5, 0, 2)).followed_by([("norm_match", {"by": by})])
    found = changed(recipe, DELTAS, combined)
    for group in GROUPS[by]:
        norms = [math.sqrt(sum(float((d[n].double() ** 2).sum()) for n in group)) for d in (DELTAS[0], DELTAS[2])]
        own = math.sqrt(sum(float((combined[n].double() ** 2).sum()) for n in group))
        for name in group:
            expected = combined[name].double().numpy() * (sum(norms) / 2 / own)
            np.testing.assert_allclose(found[name], expected, rtol=1e-6)


@pytest.mark.parametrize("floor", [0.2, 1.0])
@pytest.mark.parametrize("weights", [(1, 1, 1), (0.4, 0, 1.5)])
def test_svc_divides_each_singular_value_by_the_mean_count_of_the_experts(
    floor: float, weights: tuple[float, ...]
) -> None:
    """Direction by direction, with eigenvectors of a product in place of a decomposition."""
    recipe = Recipe.make("weighted", weights=weights).followed_by([("svc", {"floor": floor})])
    combined = METHODS["weighted"].combine(Experts(DELTAS), weights, {"aggregate": "sum"})
    found = changed(recipe, DELTAS, combined)
    used = [delta for delta, weight in zip(DELTAS, weights, strict=True) if weight]
    for name, tensor in combined.items():
        matrix = tensor.double().numpy()
        expected = matrix
        if matrix.ndim == 2:
            expected = np.zeros_like(matrix)
            squares, vectors = np.linalg.eigh(matrix @ matrix.T)
            for u in vectors.T[squares > 1e-9]:
                counts = []
                for delta in used:
                    response = u @ delta[name].double().numpy()
                    counts.append(max(floor, (u @ matrix) @ response / (response @ response)))
                expected += np.outer(u, u @ matrix) / np.mean(counts)
        np.testing.assert_allclose(found[name], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("floor", [0.25, 1.0])
def test_svc_counts_what_experts_share_once_and_leaves_what_they_do_not(floor: float) -> None:
    """Copies count once. Of experts with rows and columns of their own, all other responses are 0 within rounding."""
    recipe = Recipe.make("sum").followed_by([("svc", {"floor": floor})])
    copies = changed(recipe, [DELTAS[0]] * 3, METHODS["sum"].combine(Experts([DELTAS[0]] * 3), (1, 1, 1), {}))
    np.testing.assert_allclose(copies["h.1.w"], DELTAS[0]["h.1.w"].numpy(), rtol=1e-4, atol=1e-6)
    apart = [{name: torch.zeros_like(t) for name, t in DELTAS[0].items()} for _ in range(2)]
    apart[0]["h.0.w"][:2, :2], apart[1]["h.0.w"][2:, 2:] = DELTAS[0]["h.0.w"][:2, :2], DELTAS[1]["h.0.w"][2:, 2:]
    turn = torch.linalg.qr(DELTAS[2]["h.1.w"] @ DELTAS[2]["h.1.w"].T)[0]
    apart = [{**delta, "h.0.w": delta["h.0.w"] @ turn} for delta in apart]
    merged = apart[0]["h.0.w"] + apart[1]["h.0.w"]
    found = changed(recipe, apart, {**DELTAS[0], "h.0.w": merged})
    np.testing.assert_allclose(found["h.0.w"], merged.numpy() * 2 / (1 + floor), rtol=1e-4, atol=1e-6)


CHAINS = [
    [("norm_match", {})],
    [("norm_match", {"by": "parameter"}), ("norm_match", {"by": "whole"})],
    [("svc", {}), ("norm_match", {}), ("svc", {"floor": 0.5})],
]


@pytest.mark.parametrize("piece", [3, 1 << 18])
@pytest.mark.parametrize("steps", CHAINS)
@pytest.mark.parametrize(("method", "alpha"), [("sum", "auto"), ("ties", 0.4), ("breadcrumbs", 0.4), ("single", 0.6)])
def test_workers_and_files_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, method: str, alpha: float | str, steps: list, piece: int
) -> None:
    """Cut into pieces, or computed tensor by tensor; twice from the cache, and after a recipe without the chain."""
    monkeypatch.setattr(parameter_pieces, "PIECE", piece)
    base, weights = state(0), (0, 1, 0) if method == "single" else (1, 0, 1)
    recipe = Recipe.make(method, "linear", alpha, 0.5, weights).followed_by(steps)
    experts = [{n: base[n] + d[n] for n in base} for d in DELTAS]
    exact = {str(i): {n: e[n] - base[n] for n in base} for i, e in enumerate(experts)}
    models = [Checkpoint(str(i), model, "") for i, model in enumerate([base, *experts])]
    written, merged = merge_states(models[0], models[1:], recipe, LAYERS)
    module = module_of(base)
    resident = ResidentModel(module, LAYERS, base, exact, CPU, torch.float32)
    plain = Recipe.make(method, "linear", alpha, 0.5, weights)
    for again in (recipe, plain, recipe):
        made = resident.materialise(again)
    assert made.alpha == merged.alpha
    assert all(torch.equal(written[n], t) for n, t in parameters(module).items())
    resident.materialise(plain)
    assert method == "single" or not all(torch.equal(written[n], t) for n, t in parameters(module).items())


@pytest.mark.parametrize("step", STEPS)
def test_an_expert_that_is_not_finite_is_an_error_of_the_rebuild(step: str) -> None:
    deltas = {"a": DELTAS[0], "b": {name: torch.full_like(t, torch.nan) for name, t in DELTAS[1].items()}}
    resident = ResidentModel(module_of(state(0)), LAYERS, state(0), deltas, CPU, torch.float32)
    with pytest.raises(NonFiniteError, match="non-finite task vector: method sum"):
        resident.materialise(Recipe.make("sum").followed_by([(step, {})]))


def test_a_combined_vector_serves_all_scalings_of_its_chain_alone() -> None:
    made = []

    def combine(recipe: Recipe, weights: object, params: object) -> Combined:
        made.append(recipe.then)
        return Combined(LowRankDelta({}, {}))

    cache = CombinedCache(2, combine)
    step = [("norm_match", {"by": "whole"})]
    recipes = [Recipe.make("sum", "linear", alpha, 1) for alpha in (0.1, 0.2)]
    for recipe in [*recipes, *(r.followed_by(step) for r in recipes), *(r.followed_by(step * 2) for r in recipes)]:
        cache.get(recipe, 2)
    assert list(map(len, made)) == [0, 1, 2]


def test_low_rank_experts_become_dense_for_a_chain() -> None:
    factors = [LowRank(torch.randn(4, 2), torch.randn(2, 6)) for _ in range(2)]
    deltas = {
        str(i): LowRankDelta({"h.1.w": f}, {n: torch.Size(s) for n, s in SHAPES.items()}) for i, f in enumerate(factors)
    }
    base, module = state(0), module_of(state(0))
    resident = ResidentModel(module, LAYERS, base, deltas, CPU, torch.float32)
    resident.materialise(Recipe.make("sum", alpha=1).followed_by([("norm_match", {})]))
    change = parameters(module)["h.1.w"] - base["h.1.w"]
    expected = sum(float(f.dense().norm()) for f in factors) / 2
    assert float(change.norm()) == pytest.approx(expected, rel=1e-5)
