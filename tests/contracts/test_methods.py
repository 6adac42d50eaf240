"""Proves that every merge method keeps the contract of `pipeline.merging.methods.base.Method`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipeline.merging import parameter_pieces
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts
from pipeline.parameters import resolve
from pipeline.recipe import ParamValue

#: One line for each way to call a method: (method, weights of three experts, parameters).
CASES = [
    ("zero", (1, 1, 1), {}),
    ("single", (0, 1, 0), {}),
    ("sum", (1, 1, 1), {}),
    ("sum", (1, 0, 1), {}),
    ("average", (1, 1, 1), {}),
    ("average", (0, 1, 1), {}),
    ("weighted", (0.25, -1, 0.5), {}),
    ("weighted", (0, 0, 0), {}),
    ("weighted", (0.25, -1, 0.5), {"aggregate": "mean"}),
    ("ties", (1, 1, 1), {}),
    ("ties", (1, 0, 1), {"keep": 40, "aggregate": "sum", "outside": 7}),
    ("consensus", (1, 1, 1), {}),
    ("consensus", (0, 1, 1), {"tall_lambda": (0.2, 0.3, 0.6), "threshold": 1}),
    ("tall_mask", (1, 0, 1), {"expert": 2}),
    ("emr", (1, 0, 1), {"expert": 2}),
    ("pcb", (1, 0, 1), {"keep": 40}),
    ("ties", (0.5, 0, -2), {"keep": 40, "trim": "tensor", "rescale": "l1"}),
    ("magnitude", (1, 0, 1), {"aggregate": "mean"}),
    ("dare", (1, 0, 1), {"drop": 0.5, "seed": 3}),
    ("dare", (0.5, 0, 2), {"drop": 0.5, "rescale": "l1", "aggregate": "mean"}),
    ("dare_ties", (0.5, 0, 2), {"drop": 0.5, "rescale": "density"}),
    ("della", (0.5, 0, 2), {"density": 0.4, "epsilon": 0.2}),
    ("della_linear", (1, 1, 1), {"aggregate": "mean", "rescale": "no"}),
    ("breadcrumbs", (1, 0, 1), {"keep": 50, "top": 10}),
    ("breadcrumbs", (0.5, 0, -2), {"keep": 50, "round": "down", "rescale": "l1"}),
    ("breadcrumbs_ties", (0.5, 1, 2), {"keep": 50, "top": 10, "aggregate": "mean"}),
    ("model_stock", (1, 1, 1), {}),
    ("model_stock", (0, 1, 0), {}),
    ("model_stock", (1, 0, 1), {"by": "rows", "negative": "keep"}),
    ("slerp", (1, 0, 1), {"t": 0.3}),
    ("nuslerp", (0.75, 0, 0.25), {}),
    ("nuslerp", (0.75, 0, 0.25), {"between": "weights", "by": "rows"}),
    ("nuslerp", (1, 2, 0), {"by": "columns"}),
    ("nuslerp", (1, 0, 0), {}),
    ("multislerp", (0.5, 1, 2), {}),
    ("multislerp", (0.5, 0, 2), {"between": "weights"}),
    ("multislerp", (0.5, 0, 2), {"aggregate": "sum"}),
    ("karcher", (1, 1, 1), {}),
    ("karcher", (1, 0, 1), {"max_iter": 3}),
    ("sce", (1, 1, 1), {}),
    ("sce", (1, 0, 1), {"density": 0.5}),
    ("nearswap", (0, 1, 0), {"t": 0.5}),
    ("arcee_fusion", (0, 1, 0), {}),
    ("fisher", (1, 0, 1), {}),
    ("regmean", (1, 0, 1), {}),
    ("regmean_pp", (1, 0, 1), {}),
    ("tsvm", (1, 1, 1), {}),
    ("tsvm", (1, 0, 1), {}),
    ("iso_c", (1, 0, 1), {}),
    ("iso_cts", (1, 0, 1), {"common": 0.5}),
    ("wudi", (1, 0, 1), {"steps": 5, "lr": 0.1}),
    ("knots", (1, 0, 1), {"keep": 40}),
    ("knots", (1, 1, 1), {"drop": 0.3, "seed": 2, "aggregate": "sum"}),
    ("adamerging", (1, 0, 1), {}),
    ("atlas", (1, 0, 1), {}),
]
#: A decomposition of a matrix of twice the size may round differently.
ROUNDS = {"regmean", "regmean_pp", "tsvm", "iso_c", "iso_cts", "knots"}
#: Methods of a fixed scale: that of t, of a softmax of weights, of a tanh of products, of a step.
FIXED_SCALE = {"nearswap", "arcee_fusion", "pcb", "wudi"}
SHAPES = {"scalar": (), "bias": (5,), "weight": (4, 5), "kernel": (2, 3, 2, 2)}


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def statistics(needs: str, seed: int) -> dict[str, Tensor]:
    """Return the statistics of one expert that `Method.needs` names."""
    entries = tensors(seed)
    inputs = entries["weight"]
    kinds = {
        "": {},
        "fisher": {name: t.square() for name, t in entries.items()},
        "gram": {"weight": inputs.T @ inputs},
        "merged_gram": {"weight": inputs.T @ inputs},
        "learned": {name: t.mean() for name, t in entries.items()},
    }
    return kinds[needs]


def make_experts(method: str) -> Experts:
    given = [statistics(METHODS[method].needs, 20 + i) for i in range(3)]
    return Experts([tensors(10 + i) for i in range(3)], tensors(0), given)


def combine(name: str, weights: Sequence[float], params: Mapping[str, ParamValue], experts: Experts | None = None):
    method = METHODS[name]
    resolved = resolve(method.parameters, params)
    method.check(weights, resolved)
    return method.combine(make_experts(name) if experts is None else experts, weights, resolved)


def scaled(part: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    return {name: factor * t for name, t in part.items()}


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_method_has_a_case() -> None:
    assert {method for method, _, _ in CASES} == set(METHODS)


#: What of three experts takes part where the result is meant as a model by itself.
SHARES = {"single": (0, 1, 0), "slerp": (1, 0, 1), "nuslerp": (1, 0, 1), "weighted": (0.25, 0.5, 0.25)}


#: Methods whose result is a part of an expert, or between the experts' sum and an expert.
PARTS = {"zero", "nearswap", "arcee_fusion", "wudi"}


@pytest.mark.parametrize(
    "name", [n for n, method in METHODS.items() if method.whole and n not in PARTS and method.needs != "learned"]
)
def test_a_model_by_itself_of_equal_experts_is_that_expert(name: str) -> None:
    experts = make_experts(name)
    copies = replace(experts, deltas=[experts.deltas[0]] * 3)
    combined = combine(name, SHARES.get(name, (1, 1, 1)), {}, copies)
    assert all(torch.allclose(combined[n], experts.deltas[0][n], rtol=1e-4, atol=1e-5) for n in SHAPES)


@pytest.mark.parametrize(("name", "weights", "params"), CASES)
class TestMethod:
    def test_gives_finite_float32_of_the_same_names_and_shapes(self, name, weights, params) -> None:
        combined = combine(name, weights, params)
        assert {k: tuple(t.shape) for k, t in combined.items()} == SHAPES
        assert all(t.dtype == torch.float32 and bool(t.isfinite().all()) for t in combined.values())

    def test_never_writes_to_its_inputs(self, name, weights, params) -> None:
        experts, before = make_experts(name), make_experts(name)
        combine(name, weights, params, experts)
        assert experts.base is not None and before.base is not None
        assert equal(experts.base, before.base)
        for now, then in zip([*experts.deltas, *experts.statistics], [*before.deltas, *before.statistics], strict=True):
            assert equal(now, then)

    def test_repeats_bit_for_bit(self, name, weights, params) -> None:
        assert equal(combine(name, weights, params), combine(name, weights, params))

    def test_no_change_combines_to_no_change(self, name, weights, params) -> None:
        experts = make_experts(name)
        still = replace(experts, deltas=[scaled(d, 0) for d in experts.deltas])
        assert not any(bool(t.any()) for t in combine(name, weights, params, still).values())

    def test_ignores_experts_of_weight_zero(self, name, weights, params) -> None:
        """What they hold is never read: neither their task vectors nor their statistics."""
        experts = make_experts(name)
        used = [bool(weight) for weight in weights]
        names = dict.fromkeys(SHAPES, torch.tensor(torch.nan))
        part = replace(
            experts,
            deltas=[
                d if use else {n: torch.full_like(t, torch.nan) for n, t in d.items()}
                for d, use in zip(experts.deltas, used, strict=True)
            ],
            statistics=[s if use else names for s, use in zip(experts.statistics, used, strict=True)],
        )
        if any(used):
            assert equal(combine(name, weights, params), combine(name, weights, params, part))


@pytest.mark.parametrize(("name", "weights", "params"), [case for case in CASES if case[0] not in FIXED_SCALE])
def test_scales_with_the_unit_of_the_weights(name, weights, params) -> None:
    """By a power of two, which is exact in floating point."""
    experts = make_experts(name)
    assert experts.base is not None
    doubled = replace(experts, deltas=[scaled(d, 2) for d in experts.deltas], base=scaled(experts.base, 2))
    once, twice = scaled(combine(name, weights, params), 2), combine(name, weights, params, doubled)
    if name in ROUNDS:
        assert all(torch.allclose(once[n], twice[n], rtol=1e-4, atol=1e-5) for n in once)
    else:
        assert equal(once, twice)


@pytest.mark.parametrize(("name", "weights", "params"), CASES)
def test_pieces_of_parameters_change_rounding_at_most(
    monkeypatch: pytest.MonkeyPatch, name: str, weights: Sequence[float], params: Mapping[str, ParamValue]
) -> None:
    whole = combine(name, weights, params)
    monkeypatch.setattr(parameter_pieces, "PIECE", 7)
    cut = combine(name, weights, params)
    for key, tensor in whole.items():
        torch.testing.assert_close(cut[key], tensor, rtol=1e-6, atol=1e-9)
