"""Proves that every step after a merge keeps the contract of `pipeline.merging.steps.base.Step`."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from contracts.test_methods import equal, scaled, tensors
from torch import Tensor

from pipeline.merging.chain import Chain
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts
from pipeline.merging.steps import STEPS
from pipeline.merging.steps.base import Place
from pipeline.parameters import resolve
from pipeline.recipe import ParamValue, Recipe

#: One line for each way to call a step: (step, parameters).
CASES: list[tuple[str, dict[str, ParamValue]]] = [
    ("norm_match", {}),
    ("norm_match", {"by": "parameter"}),
    ("norm_match", {"by": "whole"}),
    ("svc", {}),
    ("svc", {"floor": 0.3}),
]
PLACES = {"scalar": None, "bias": 0, "weight": 0, "kernel": 1}
DELTAS = [tensors(10 + i) for i in range(3)]


def place(name: str) -> Place:
    return Place(name, PLACES[name])


def chain(*steps: tuple[str, Mapping[str, ParamValue]]) -> Chain:
    return Chain.of(Recipe.make("sum").followed_by(steps))


def follow(
    steps: Chain, experts: Sequence[Mapping[str, Tensor]], weights: Sequence[float], method: str = "sum"
) -> Mapping[str, Tensor]:
    given, params = Experts(experts), resolve(METHODS[method].parameters, {})
    return steps.change(METHODS[method].combine(given, weights, params), given, weights, place)


def test_every_step_has_a_case() -> None:
    assert {name for name, _ in CASES} == set(STEPS)


@pytest.mark.parametrize(("name", "params"), CASES)
class TestStep:
    def test_gives_finite_float32_of_the_same_names_and_shapes_bit_for_bit(self, name: str, params: Any) -> None:
        found = follow(chain((name, params)), DELTAS, (1, 1, 1))
        assert {k: t.shape for k, t in found.items()} == {k: t.shape for k, t in DELTAS[0].items()}
        assert all(t.dtype == torch.float32 and bool(t.isfinite().all()) for t in found.values())
        assert equal(found, follow(chain((name, params)), DELTAS, (1, 1, 1)))

    def test_changes_a_merge_and_never_its_inputs(self, name: str, params: Any) -> None:
        before = [{n: t.clone() for n, t in delta.items()} for delta in DELTAS]
        merged = METHODS["sum"].combine(Experts(DELTAS), (1, 1, 1), {})
        kept = {n: t.clone() for n, t in merged.items()}
        assert not equal(chain((name, params)).change(merged, Experts(DELTAS), (1, 1, 1), place), kept)
        assert equal(merged, kept) and all(map(equal, DELTAS, before))

    def test_no_change_stays_no_change(self, name: str, params: Any) -> None:
        found = follow(chain((name, params)), [scaled(d, 0) for d in DELTAS], (1, 1, 1))
        assert not any(bool(t.any()) for t in found.values())

    def test_one_expert_stays_as_it_is(self, name: str, params: Any) -> None:
        found = follow(chain((name, params)), DELTAS, (0, 1, 0), "single")
        assert all(torch.allclose(found[n], DELTAS[1][n], rtol=1e-5, atol=1e-6) for n in found)

    def test_ignores_experts_of_weight_zero_and_their_order(self, name: str, params: Any) -> None:
        lost = {n: torch.full_like(t, torch.nan) for n, t in DELTAS[0].items()}
        first = follow(chain((name, params)), [DELTAS[0], lost, DELTAS[2]], (1, 0, 1))
        turned = follow(chain((name, params)), [DELTAS[2], DELTAS[0], lost], (1, 1, 0))
        assert all(torch.allclose(first[n], turned[n], rtol=1e-5, atol=1e-6) for n in first)

    def test_entry_by_entry_has_the_same_bits(self, name: str, params: Any) -> None:
        """What files are merged by, and after another step."""
        steps, experts = chain((name, params), ("norm_match", {"by": "whole"}), (name, params)), Experts(DELTAS)
        entry = METHODS["sum"].prepare(experts, (1, 1, 1), {})
        follower = steps.follow(entry, experts, (1, 1, 1), place).after(entry, place)
        expected = follow(steps, DELTAS, (1, 1, 1))
        assert equal({n: follower(experts, n) for n in DELTAS[0]}, expected)
