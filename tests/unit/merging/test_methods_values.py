"""Proves what each merge method computes, against the oracle's files and slow flattened computations."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_methods import combine, experts_of, random_experts
from safetensors.torch import load_file
from torch import Tensor

from pipeline.merging.methods import METHODS, aggregation
from pipeline.merging.methods.aggregation import column_sum
from pipeline.merging.methods.base import Experts
from pipeline.merging.task_vectors import NamedTensors, task_vector

ORACLE = Path(__file__).parents[2] / "data" / "oracle"


@pytest.fixture(scope="module")
def oracle() -> Experts:
    base = load_file(ORACLE / "base.safetensors")
    files = [ORACLE / f"finetuned_{i}.safetensors" for i in range(3)]
    return Experts([task_vector(NamedTensors("base", base), NamedTensors(f.name, load_file(f))) for f in files], base)


def flat(vector: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([vector[name].reshape(-1) for name in sorted(vector)])


# --- the oracle's files, which the authors' code wrote


@pytest.mark.parametrize(
    ("file", "method", "params"),
    [
        ("ties_k20_mean", "ties", {}),
        ("ties_k20_sum", "ties", {"aggregate": "sum"}),
        ("consensus_l0.4_k1", "consensus", {"threshold": 1}),
        ("consensus_l0.4_k2", "consensus", {"threshold": 2}),
        ("consensus_l0.4_k2", "consensus", {"tall_lambda": (0.4, 0.4, 0.4)}),
        ("sum", "consensus", {"threshold": 0}),
    ],
)
def test_equals_the_oracle_entry_by_entry(file: str, method: str, params: dict, oracle: Experts) -> None:
    combined, expected = combine(method, oracle, **params), load_file(ORACLE / f"{file}.safetensors")
    assert combined.keys() == expected.keys()
    assert all(torch.equal(combined[name], expected[name]) for name in expected)


# --- TIES and TALL masks against the flattened computation


def slow_ties(vectors: Tensor, kept_entries: int, mean: bool) -> Tensor:
    """Step by step over (experts, entries), as section 3 of the TIES paper and the authors' choices have it."""
    rows = []
    for vector in vectors:
        least = vector.abs().sort(descending=True).values[min(kept_entries, len(vector)) - 1]
        rows.append(torch.where(vector.abs() >= least, vector, 0))
    trimmed = torch.stack(rows)
    signs = trimmed.sum(0).sign()
    majority = signs.sum().sign()
    signs[signs == 0] = majority
    merged = torch.zeros(trimmed.shape[1])
    for entry, sign in enumerate(signs):
        agreeing = [x for x in trimmed[:, entry] if (x > 0 if sign > 0 else x < 0)]
        if agreeing:
            merged[entry] = sum(agreeing) / (len(agreeing) if mean else 1)
    return merged


#: Few values, so that entries tie, cancel out and are 0.
QUARTERS = st.integers(-4, 4).map(lambda n: n / 4)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4).flatmap(
        lambda count: st.lists(st.lists(QUARTERS, min_size=count, max_size=count), min_size=3, max_size=12)
    ),
    st.sampled_from([1, 20, 40, 75, 100]),
    st.sampled_from(["mean", "sum"]),
)
def test_ties_equals_the_slow_one(columns: list[list[float]], keep: float, aggregate: str) -> None:
    vectors = torch.tensor(columns).T.contiguous()
    split = vectors.shape[1] // 2
    experts = Experts([{"a": row[:split], "b": row[split:]} for row in vectors])
    expected = slow_ties(vectors, int(vectors.shape[1] * (keep / 100)) + 1, aggregate == "mean")
    combined = flat(combine("ties", experts, keep=keep, aggregate=aggregate))
    assert combined == pytest.approx(expected, rel=1e-6)


def test_ties_trims_over_entries_outside_too() -> None:
    """10 entries and 10 frozen ones: 20 % of 20 are 4, plus the one more of the authors."""
    experts = experts_of([[float(i) for i in range(1, 11)]])
    assert flat(combine("ties", experts)).count_nonzero() == 3
    assert flat(combine("ties", experts, outside=10)).count_nonzero() == 5
    assert flat(combine("ties", experts, outside=1000)).count_nonzero() == 10


def test_zero_signs_follow_the_whole_vectors_majority() -> None:
    for negatives, expected in ((0, 2.0), (3, -2.0), (1, -2.0)):  # a majority of 0 counts as minus
        signs = [1.0] + [-1.0] * negatives
        experts = experts_of([[2.0, *signs], [-2.0, *signs]])
        assert combine("ties", experts, keep=100)["w"][0] == expected


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 400))
def test_column_sums_do_not_depend_on_how_a_vector_is_cut(rows: int, columns: int) -> None:
    whole = torch.randn(rows, 1024, generator=torch.Generator().manual_seed(rows))
    assert torch.equal(column_sum(whole[:, :columns]), whole.sum(0)[:columns])


def test_many_experts_give_the_bits_of_the_flattened_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 17 experts on torch adds in another order than one after the other."""
    monkeypatch.setattr(aggregation, "COLUMNS", 192)
    experts = random_experts(20, a=(679,), b=(30, 20), c=())
    assert experts.base is not None
    vectors, theta0 = torch.stack([flat(d) for d in experts.deltas]), flat(experts.base)
    total = vectors.sum(0)
    tuned = vectors + theta0
    masks = vectors.abs() > ((theta0 + total) - tuned).abs() * 0.3
    assert torch.equal(flat(combine("consensus", experts, tall_lambda=0.3, threshold=9)), total * (masks.sum(0) >= 9))
    for place in (0, 19):
        masked = combine("tall_mask", experts, tall_lambda=0.3, expert=place)
        assert torch.equal(flat(masked), total * masks[place])


def test_one_lambda_for_each_expert_in_the_runs_order() -> None:
    experts = experts_of([[1.0, 1.0], [2.0, 0.5], [9.0, 9.0]])  # |tau_MTL - tau_t| is 2, 0.5 and 1, 1
    both = combine("consensus", experts, (1, 1, 0), tall_lambda=(0.4, 1.9, 0.1))["w"]
    assert both.tolist() == [3.0, 0.0]
    assert combine("consensus", experts, (1, 1, 0), tall_lambda=(0.6, 1.9, 0.1))["w"].tolist() == [0.0, 0.0]
    assert combine("consensus", experts, (1, 1, 0), tall_lambda=(0.6, 1.9, 0), threshold=1)["w"].tolist() == [3.0, 1.5]


# --- thinned task vectors


def test_magnitude_keeps_the_largest_of_the_whole_vector() -> None:
    experts = Experts([{"a": torch.tensor([5.0, -1.0]), "b": torch.tensor([-4.0, 2.0, 0.5])}] * 2)
    kept = combine("magnitude", experts, keep=40, aggregate="mean")  # 2 of 5, and one more
    assert (kept["a"].tolist(), kept["b"].tolist()) == ([5.0, 0.0], [-4.0, 2.0, 0.0])
    assert combine("magnitude", experts, keep=40)["b"].tolist() == [-8.0, 4.0, 0.0]


def test_breadcrumbs_takes_off_both_tails_of_each_parameter() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    combined = combine("breadcrumbs", Experts([{"a": values, "b": values * 9}]), keep=14.3, top=0.7)
    order = values.abs().argsort(descending=True)
    for name, factor in (("a", 1), ("b", 9)):
        assert set(combined[name].nonzero().flatten().tolist()) == set(order[7:150].tolist())
        assert torch.equal(combined[name][order[7:150]], values[order[7:150]] * factor)
    scalar = Experts([{"s": torch.tensor(3.0)}])
    assert combine("breadcrumbs", scalar)["s"] == 3.0


def test_dare_drops_at_random_and_keeps_the_mean() -> None:
    experts = Experts([{"a": torch.ones(100_000)}, {"a": torch.ones(100_000)}])
    one = combine("dare", experts, (1, 0), drop=0.8)["a"]
    assert one.unique().tolist() == pytest.approx([0.0, 5.0])
    assert one.mean().item() == pytest.approx(1, abs=0.02)
    both = combine("dare", experts, drop=0.8, aggregate="mean")["a"]
    assert both.unique().numel() == 3 and both.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(combine("dare", experts, (1, 0), drop=0)["a"], torch.ones(100_000))


def test_dares_random_numbers_belong_to_seed_expert_and_parameter() -> None:
    whole = random_experts(2, a=(50,), b=(50,))
    reordered = Experts([{"b": d["b"], "a": d["a"]} for d in whole.deltas])
    first, second = combine("dare", whole, (1, 0), drop=0.5), combine("dare", whole, (0, 1), drop=0.5)
    assert torch.equal(first["a"], combine("dare", reordered, (1, 0), drop=0.5)["a"])
    both = combine("dare", whole, drop=0.5)
    assert torch.equal(both["b"], first["b"] + second["b"])
    patterns = [t != 0 for t in (first["a"], first["b"], second["a"], combine("dare", whole, (1, 0), seed=1)["a"])]
    assert all(not torch.equal(a, b) for i, a in enumerate(patterns) for b in patterns[:i])


# --- values that are not finite


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.propagates])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_stay_where_the_method_says_so(name: str, value: float) -> None:
    weights = (0, 1) if name == "single" else (1, 1)
    for place in range(8):
        experts = random_experts(2, w=(8,))
        experts.deltas[1]["w"][place] = value
        assert not combine(name, experts, weights)["w"][place].isfinite()


# --- what a method cannot use


@pytest.mark.parametrize(
    ("method", "weights", "params", "message"),
    [
        ("ties", (1, 0.5, 1), {}, "method ties: weights select experts and must be 0 or 1"),
        ("ties", (1, 1, 1), {"keep": 0}, r"keep: must be in \(0, 100\], got 0"),
        ("ties", (1, 1, 1), {"aggregate": "median"}, "aggregate: must be one of mean, sum, got 'median'"),
        ("ties", (1, 1, 1), {"outside": 0.5}, "outside: must be a whole number, got 0.5"),
        ("consensus", (1, 1, 1), {"tall_lambda": (0.4, 0.4)}, "one for each of 3 experts, got 2"),
        ("consensus", (1, 1, 1), {"tall_lambda": (0.4, -1, 1)}, r"tall_lambda: must be in \[0, inf\), got -1"),
        ("consensus", (1, 1, 1), {"threshold": -1}, "threshold: must be in"),
        ("consensus", (1, 0, 1), {"threshold": 3}, "at most the number of experts that take part, 2, got 3"),
        ("breadcrumbs", (1, 1, 1), {"top": 60, "keep": 50}, "at most the 40 percent that top = 60 leaves, got 50"),
        ("tall_mask", (1, 0, 1), {"expert": 1}, "the place of an expert that takes part, one of 0, 2, got 1"),
        ("tall_mask", (1, 1, 1), {"expert": 3}, "got 3"),
        ("tall_mask", (1, 1, 1), {"tall_lambda": (0.4, 0.4, 0.4)}, "tall_lambda: must be a number"),
        ("dare", (1, 1, 1), {"drop": 1}, r"drop: must be in \[0, 1\), got 1"),
        ("slerp", (1, 1, 1), {}, "slerp: takes two experts, got 3: choose by --expert"),
        ("slerp", (1, 1, 0), {"t": 1.5}, "t: must be in"),
        ("fisher", (0, 0, 0), {}, "select at least one expert"),
    ],
)
def test_bad_weights_and_parameters_are_refused(method: str, weights: tuple, params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        combine(method, random_experts(3, w=(2, 2)), weights, **params)
