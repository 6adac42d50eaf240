"""Proves that merge methods by angle, by statistics and by singular values compute their closed forms."""

import math

import pytest
import torch
from merge_methods import combine, experts_of, random_experts
from torch import Tensor

from pipeline.merging.methods.base import Experts

# --- by angle


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
