"""Proves what each merge method computes, against the oracle's files, slow flattened computations and closed forms."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_methods import combine
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


def experts_of(rows: Sequence[Sequence[float]], base: Sequence[float] | None = None) -> Experts:
    """One parameter "w" of one row an expert."""
    theta0 = torch.tensor(base) if base else torch.zeros(len(rows[0]))
    return Experts([{"w": torch.tensor(row)} for row in rows], {"w": theta0})


def random_experts(count: int, seed: int = 0, **shapes: tuple[int, ...]) -> Experts:
    generator = torch.Generator().manual_seed(seed)

    def draw(scale: float) -> dict[str, Tensor]:
        return {n: scale * torch.randn(shape, generator=generator) for n, shape in shapes.items()}

    return Experts([draw(0.01) for _ in range(count)], draw(0.1))


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


# --- by angle


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.propagates])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_stay_where_the_method_says_so(name: str, value: float) -> None:
    weights = (0, 1) if name == "single" else (1, 1)
    for place in range(8):
        experts = random_experts(2, w=(8,))
        experts.deltas[1]["w"][place] = value
        assert not combine(name, experts, weights)["w"][place].isfinite()


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 135])
def test_model_stock_of_two_is_the_foot_of_the_perpendicular(degrees: float) -> None:
    """Its t is 2 cos / (1 + cos), which is 0 from a right angle on."""
    angle = math.radians(degrees)
    experts = experts_of([[2.0, 0.0], [2 * math.cos(angle), 2 * math.sin(angle)]])
    cosine = max(0.0, math.cos(angle))
    expected = sum(d["w"] for d in experts.deltas) / 2 * (2 * cosine / (1 + cosine))
    assert combine("model_stock", experts)["w"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_model_stock_takes_the_mean_cosine_over_pairs() -> None:
    experts = random_experts(4, a=(40,), b=(3, 3))
    common = {n: t.abs() for n, t in experts.deltas[0].items()}
    deltas = [{n: t + common[n] for n, t in d.items()} for d in experts.deltas]
    combined = combine("model_stock", Experts(deltas))
    for name in common:
        rows = torch.stack([d[name].flatten() for d in deltas]).double()
        cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
        cosine = (cosines.sum() - 4) / 12
        expected = rows.mean(0) * (4 * cosine / (1 + 3 * cosine))
        assert combined[name].flatten().tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-7)


def test_slerp_walks_the_arc_between_the_weights() -> None:
    experts = experts_of([[1.0, 0.0], [0.0, 2.0], [7.0, 7.0]])
    for t in (0, 0.25, 1):
        angle = t * math.pi / 2
        expected = [math.cos(angle), 2 * math.sin(angle)]
        assert combine("slerp", experts, (1, 1, 0), t=t)["w"].tolist() == pytest.approx(expected, abs=1e-6)
    base = experts_of([[0.5, -1.0], [-0.5, 1.0]], [0.5, 1.0])  # the same weights, from another base
    expected = [math.cos(0.7) - 0.5, 2 * math.sin(0.7) - 1]
    assert combine("slerp", base, t=0.7 / (math.pi / 2))["w"].tolist() == pytest.approx(expected, abs=1e-6)


def test_slerp_of_nearly_parallel_weights_is_linear() -> None:
    experts = experts_of([[0.001, 0.0], [0.0, 0.002]], [1.0, 1.0])
    assert combine("slerp", experts, t=0.25)["w"].tolist() == pytest.approx([0.00075, 0.0005])


# --- by statistics


def test_fisher_is_the_weighted_mean_and_the_plain_one_where_nothing_is_known() -> None:
    experts = experts_of([[1.0, 4.0, 2.0], [3.0, 8.0, 4.0]])
    fisher = [{"w": torch.tensor([1e-30, 3.0, 0.0])}, {"w": torch.tensor([1e-30, 1.0, 0.0])}]
    combined = combine("fisher", Experts(experts.deltas, experts.base, fisher))["w"]
    assert combined.tolist() == [2.0, 5.0, 3.0]


def test_regmean_is_the_least_squares_solution() -> None:
    """With whole Gram matrices: the weight that is nearest to each expert's outputs on its own inputs."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(30, 4, generator=generator) for _ in range(2)]
    theta0 = torch.randn(3, 4, generator=generator)
    deltas = [{"w": torch.randn(3, 4, generator=generator), "b": torch.randn(3, generator=generator)} for _ in inputs]
    experts = Experts(deltas, {"w": theta0, "b": torch.zeros(3)}, [{"w": x.T @ x} for x in inputs])
    combined = combine("regmean", experts, reduce=1)
    targets = torch.cat([x @ (theta0 + d["w"]).T for x, d in zip(inputs, deltas, strict=True)])
    expected = torch.linalg.lstsq(torch.cat(inputs), targets).solution.T - theta0
    assert torch.allclose(combined["w"], expected, atol=1e-5)
    assert torch.allclose(combined["b"], (deltas[0]["b"] + deltas[1]["b"]) / 2)


def test_regmean_reduces_what_is_off_the_diagonal() -> None:
    """With 0 each input is on its own: a mean weighted by the input's mean square."""
    experts = experts_of([[1.0, 1.0], [3.0, 5.0]])
    deltas = [{"w": d["w"].unsqueeze(0)} for d in experts.deltas]
    grams = [{"w": torch.tensor([[3.0, 2.0], [2.0, 1.0]])}, {"w": torch.tensor([[1.0, 0.5], [0.5, 1.0]])}]
    combined = combine("regmean", Experts(deltas, None, grams), reduce=0)["w"]
    assert combined.flatten().tolist() == pytest.approx([1.5, 3.0])
    half = [g["w"] * torch.tensor([[1.0, 0.5], [0.5, 1.0]]) for g in grams]
    right = sum(g @ d["w"].T for g, d in zip(half, deltas, strict=True))
    expected = torch.linalg.inv(half[0] + half[1]) @ right
    found = combine("regmean", Experts(deltas, None, grams), reduce=0.5)["w"]
    assert found.flatten().tolist() == pytest.approx(expected.flatten().tolist(), rel=1e-5)


def test_regmean_averages_where_no_input_ever_points() -> None:
    deltas = [{"w": torch.tensor([[1.0, 10.0]])}, {"w": torch.tensor([[3.0, 20.0]])}]
    grams = [{"w": torch.tensor([[2.0, 0.0], [0.0, 0.0]])}] * 2
    assert combine("regmean", Experts(deltas, None, grams))["w"].tolist()[0] == pytest.approx([2.0, 15.0], rel=1e-5)


# --- by singular values


def test_tsvm_keeps_vectors_that_are_orthogonal_already() -> None:
    """Experts in different rows and columns do not interfere: what is left is the sum of their leading parts."""
    first, second = torch.zeros(4, 4), torch.zeros(4, 4)
    first[:2, :2], second[2:, 2:] = torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([5.0, 2.0]))
    combined = combine("tsvm", Experts([{"w": first}, {"w": second}]))["w"]
    assert torch.allclose(combined, first + second, atol=1e-5)
    same = Experts([{"w": first}, {"w": second}, {"w": torch.zeros(4, 4)}])  # 4 / 3: one vector of each
    assert torch.allclose(combine("tsvm", same)["w"].diagonal(), torch.tensor([3.0, 0.0, 5.0, 0.0]), atol=1e-5)


def test_tsvm_whitens_singular_vectors_as_the_paper_does() -> None:
    experts = random_experts(3, w=(12, 8))
    combined = combine("tsvm", experts)["w"].double()
    parts = [torch.linalg.svd(d["w"].double(), full_matrices=False) for d in experts.deltas]
    left = torch.cat([u[:, :2] for u, _, _ in parts], dim=1)
    right = torch.cat([v[:2] for _, _, v in parts]).T

    def whitened(x: Tensor) -> Tensor:  # x (x^T x)^(-1/2), the same as Procrustes' solution
        values, vectors = torch.linalg.eigh(x.T @ x)
        return x @ vectors @ values.rsqrt().diag() @ vectors.T

    middle = torch.cat([s[:2] for _, s, _ in parts]).diag()
    assert torch.allclose(combined, whitened(left) @ middle @ whitened(right).T, atol=1e-7)


def test_iso_c_makes_all_singular_values_of_the_sum_equal() -> None:
    experts = random_experts(3, w=(6, 9), b=(9,), k=(2, 2, 3))
    combined = combine("iso_c", experts)
    total = sum(d["w"] for d in experts.deltas)
    mean = torch.linalg.svdvals(total).mean().item()
    assert torch.linalg.svdvals(combined["w"]).tolist() == pytest.approx([mean] * 6, rel=1e-4)
    assert (combined["w"] * total).sum().item() == pytest.approx(
        mean * torch.linalg.svdvals(total).sum().item(), rel=1e-4
    )
    low_rank = {"w": torch.ones(6, 1) @ torch.ones(1, 9)}
    assert torch.allclose(combine("iso_c", Experts([low_rank]))["w"], low_rank["w"], atol=1e-5)
    for name in ("b", "k"):
        assert torch.allclose(combined[name], sum(d[name] for d in experts.deltas) / 3)


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
