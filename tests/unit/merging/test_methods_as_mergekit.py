"""Proves that methods give what mergekit 0.1.5 wrote for the same models, and what random ones draw."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from merge_methods import combine
from safetensors.torch import load_file
from torch import Tensor

from pipeline.merging.methods import look_up_method
from pipeline.merging.methods.base import Experts
from pipeline.merging.task_vectors import NamedTensors, task_vector

MERGEKIT = Path(__file__).parents[2] / "data" / "mergekit"
TIES = {"keep": 30, "trim": "tensor", "aggregate": "mean"}


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Tensor]]:
    """Return recipe -> tensors that mergekit wrote."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(MERGEKIT / "results.safetensors").items():
        recipe, _, tensor_name = name.partition("/")
        found.setdefault(recipe, {})[tensor_name] = tensor
    return found


@pytest.fixture(scope="module")
def experts(results: Mapping[str, Mapping[str, Tensor]]) -> Experts:
    names = results["ties"]

    def read(model: str) -> dict[str, Tensor]:
        state = load_file(MERGEKIT / model / "model.safetensors")
        return {name: state[name] for name in names}

    base = read("base")
    named = [NamedTensors(f"expert{i}", read(f"expert{i}")) for i in range(3)]
    return Experts([task_vector(NamedTensors("base", base), expert) for expert in named], base)


@pytest.mark.parametrize(
    ("recipe", "method", "weights", "params"),
    [
        ("linear", "weighted", (1, 0.5, 0.25), {"aggregate": "mean"}),
        ("task_arithmetic", "weighted", (0.4, 0.4, 0.4), {}),
        ("ties", "ties", (0.5, 0.5, 0.5), TIES),
        ("breadcrumbs_ties", "breadcrumbs_ties", (0.6, 0.3, 0.2),
         {"keep": 70, "top": 2, "round": "down", "aggregate": "mean"}),
        ("model_stock", "model_stock", (1, 1, 1), {"negative": "keep"}),
        ("model_stock_rows", "model_stock", (1, 1, 1), {"negative": "keep", "by": "rows"}),
        ("nuslerp", "nuslerp", (0.6, 0.4, 0), {}),
        ("nuslerp_weights", "nuslerp", (0.6, 0.4, 0), {"between": "weights"}),
        ("nuslerp_columns", "nuslerp", (0.3, 0, 0.5), {"between": "weights", "by": "columns"}),
        ("multislerp", "multislerp", (0.6, 0.3, 0.3), {}),
        ("multislerp_weights", "multislerp", (0.6, 0.3, 0.3), {"between": "weights", "aggregate": "sum"}),
        ("slerp", "slerp", (1, 1, 0), {"t": 0.3}),
        ("karcher", "karcher", (1, 1, 1), {}),
        ("sce", "sce", (1, 1, 1), {"density": 0.3, "equal_below": 1e-6}),
        ("nearswap", "nearswap", (1, 0, 0), {"t": 0.002}),
        ("arcee_fusion", "arcee_fusion", (0, 0, 1), {}),
    ],
)  # fmt: skip
def test_equals_mergekit(
    recipe: str,
    method: str,
    weights: Sequence[float],
    params: Mapping[str, object],
    experts: Experts,
    results: Mapping[str, Mapping[str, Tensor]],
) -> None:
    combined = combine(method, experts, weights, **params)
    assert experts.base is not None
    for name, expected in results[recipe].items():
        assert torch.allclose(experts.base[name] + combined[name], expected, rtol=1e-5, atol=2e-7), name


def one(*rows: Sequence[float], base: Sequence[float] = ()) -> Experts:
    return Experts([{"w": torch.tensor(row)} for row in rows], {"w": torch.tensor(base or [0.0] * len(rows[0]))})


def test_trim_by_tensor_keeps_a_share_of_each_parameter_and_weights_elect() -> None:
    experts = Experts([{"a": torch.tensor([5.0, -4.0, 1.0, 0.5]), "b": torch.tensor([0.1, 0.2])}] * 2)
    found = combine("ties", experts, (1, 0.5), keep=50, trim="tensor", aggregate="sum")
    assert (found["a"].tolist(), found["b"].tolist()) == ([7.5, -6.0, 0.0, 0.0], [0.0, pytest.approx(0.3)])
    disagree = one([1.0, 3.0], [-2.0, 1.0])
    assert combine("ties", disagree, (1, 1), keep=100, trim="tensor")["w"].tolist() == [-2.0, 2.0]
    assert combine("ties", disagree, (3, 1), keep=100, trim="tensor")["w"].tolist() == [1.0, 2.5]
    assert combine("ties", one([1.0], [-1.0]), keep=100, trim="tensor")["w"].tolist() == [1.0]  # a sum of 0 is plus
    l1 = combine("ties", one([3.0, 1.0, 1.0]), keep=34, trim="tensor", rescale="l1")["w"]
    assert l1.tolist() == [5.0, 0.0, 0.0]


def test_a_mean_is_divided_by_the_weights() -> None:
    experts = one([2.0], [4.0])
    assert combine("weighted", experts, (3, 1), aggregate="mean")["w"].tolist() == [2.5]
    assert combine("breadcrumbs", experts, (3, 1), keep=100, top=0, aggregate="mean")["w"].tolist() == [2.5]
    assert combine("breadcrumbs", experts, (1, -1), keep=100, top=0, aggregate="mean")["w"].tolist() == [-2.0]
    with pytest.raises(ValueError, match="weights of a mean must not add up to 0"):
        combine("weighted", experts, (1, -1), aggregate="mean")


def test_breadcrumbs_round_down() -> None:
    experts = one([float(i) for i in range(1, 11)])
    assert combine("breadcrumbs", experts, keep=25, top=19)["w"].nonzero().flatten().tolist() == [6, 7, 8]
    assert combine("breadcrumbs", experts, keep=25, top=19, round="down")["w"].nonzero().flatten().tolist() == [7, 8]
    assert not combine("breadcrumbs", experts, keep=5, round="down")["w"].any()


def test_dare_keeps_the_l1_norm_or_leaves_entries() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    experts = Experts([{"w": values}])
    kept = combine("dare", experts, drop=0.7, rescale="no")["w"]
    assert set(kept[kept != 0].tolist()) <= set(values.tolist())
    assert (kept != 0).float().mean() == pytest.approx(0.3, abs=0.02)
    rescaled = combine("dare", experts, drop=0.7, rescale="l1")["w"]
    assert rescaled.abs().sum() == pytest.approx(values.abs().sum().item(), rel=1e-5)
    assert torch.equal(rescaled != 0, kept != 0)


def test_dare_ties_elects_among_the_entries_that_stay() -> None:
    experts = Experts([{"w": torch.ones(30_000)}, {"w": torch.full((30_000,), -2.0)}])
    found = combine("dare_ties", experts, drop=0.5, rescale="no")["w"]
    shares = {value: (found == value).float().mean().item() for value in (-2.0, 0.0, 1.0)}
    assert shares == pytest.approx({-2.0: 0.5, 0.0: 0.25, 1.0: 0.25}, abs=0.015)


def test_della_keeps_large_entries_more_often() -> None:
    rows = 4000
    experts = Experts([{"w": torch.tensor([3.0, -5.0, 1.0, 2.0, -4.0]).repeat(rows, 1)}])
    found = combine("della_linear", experts, density=0.5, epsilon=0.2, rescale="no")["w"]
    # Ranks 2, 4, 0, 1, 3 of 5: from density - epsilon to density + epsilon.
    assert (found != 0).float().mean(0).tolist() == pytest.approx([0.5, 0.7, 0.3, 0.4, 0.6], abs=0.03)
    whole = combine("della_linear", experts, density=1)["w"]
    assert torch.equal(whole, experts.deltas[0]["w"])
    scalar = Experts([{f"s{i}": torch.tensor(1.0) for i in range(2000)}])
    single = combine("della", scalar, density=0.5)
    assert sum(float(t != 0) for t in single.values()) / 2000 == pytest.approx(0.5, abs=0.05)


def test_draws_differ_by_seed_expert_and_parameter() -> None:
    experts = Experts([{"a": torch.ones(500), "b": torch.ones(500)}] * 2)
    for method in ("dare", "della_linear"):
        part = [combine(method, experts, weights, rescale="no", seed=s) for weights, s in (((1, 0), 0), ((0, 1), 0))]
        assert not torch.equal(part[0]["a"], part[1]["a"])
        assert not torch.equal(part[0]["a"], part[0]["b"])
        assert not torch.equal(part[0]["a"], combine(method, experts, (1, 0), rescale="no", seed=1)["a"])


def test_model_stock_keeps_a_negative_cosine_as_in_mergekit() -> None:
    angle = math.radians(110)
    experts = one([1.0, 0.0], [math.cos(angle), math.sin(angle)])
    mean = torch.tensor([1 + math.cos(angle), math.sin(angle)]) / 2
    t = 2 * math.cos(angle) / (1 + math.cos(angle))
    assert combine("model_stock", experts, negative="keep")["w"].tolist() == pytest.approx(
        (mean * t).tolist(), rel=1e-5
    )
    assert not combine("model_stock", experts)["w"].any()
    assert not combine("model_stock", one([1.0, 0.0], [-1.0, 0.0]), negative="keep")["w"].any()


def test_model_stock_by_rows_is_each_row_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    deltas = [{"w": torch.randn(3, 4, generator=generator)} for _ in range(3)]
    found = combine("model_stock", Experts(deltas), by="rows")["w"]
    for row in range(3):
        alone = combine("model_stock", Experts([{"w": d["w"][row]} for d in deltas]))["w"]
        assert torch.allclose(found[row], alone, atol=1e-6)


def test_means_on_the_sphere_have_the_mean_length_and_direction() -> None:
    quarter = one([2.0, 0.0], [0.0, 4.0])
    half = 3 / math.sqrt(2)
    assert combine("multislerp", quarter)["w"].tolist() == pytest.approx([half, half])
    assert combine("karcher", quarter)["w"].tolist() == pytest.approx([half, half])
    assert combine("nuslerp", quarter, (1, 3))["w"].tolist() == pytest.approx(
        [2 * math.sin(math.pi / 8), 4 * math.sin(3 * math.pi / 8)]
    )
    shifted = one([2.0, 0.0], [0.0, 4.0], base=[1.0, 0.0])  # karcher and slerp are between weights theta0 + tau
    point = combine("karcher", shifted)["w"] + torch.tensor([1.0, 0.0])
    assert float(point.norm()) == pytest.approx((3 + math.sqrt(17)) / 2, rel=1e-5)


def test_karcher_mean_has_no_tangent_left() -> None:
    """By definition the mean of the logarithms of all points at the mean is 0."""
    generator = torch.Generator().manual_seed(3)
    points = [torch.randn(6, generator=generator).double() for _ in range(4)]
    experts = Experts([{"w": p.float()} for p in points], {"w": torch.zeros(6)})
    mean = combine("karcher", experts, max_iter=200, tol=1e-12)["w"].double()
    unit = mean / mean.norm()
    logs = torch.zeros(6).double()
    for p in points:
        u = p / p.norm()
        cosine = u @ unit
        logs += cosine.acos() / (1 - cosine**2).sqrt() * (u - cosine * unit)
    assert float(logs.norm()) < 1e-5


def test_sce_selects_by_variance_and_weights_by_squares() -> None:
    experts = one([3.0, 1.0, 0.0, 2.0], [1.0, 1.0, 4.0, -1.0])
    # Variances are 1, 0, 4 and 2.25, of which floor(0.7 * 3) stay; then squares are 4 and 17, and the signs +, +.
    assert combine("sce", experts, density=0.7)["w"].tolist() == pytest.approx([0, 0, 4, 2])
    squares = [14 / 33, 19 / 33]
    assert combine("sce", experts)["w"].tolist() == pytest.approx([3 * squares[0] + squares[1], 1, 4, 2])
    assert combine("sce", experts, equal_below=9)["w"].tolist() == pytest.approx([2, 1, 4, 2])
    assert not combine("sce", one([1.0, 2.0]), density=0.9)["w"].any()  # one expert has no variance


def test_nearswap_moves_at_most_t() -> None:
    assert combine("nearswap", one([0.5, -0.01, 0.2]), t=0.1)["w"].tolist() == pytest.approx([0.1, -0.01, 0.1])


@pytest.mark.parametrize(
    ("method", "weights", "params", "message"),
    [
        ("ties", (1, 0.5, 1), {}, "ties with trim: tensor and the method weighted take any"),
        ("ties", (1, 1, 1), {"rescale": "l1"}, "rescale: must be no unless trim is tensor, got l1"),
        ("ties", (1, 1, 1), {"trim": "tensor", "outside": 3}, "outside: must be 0 with trim: tensor, got 3"),
        ("dare", (0, 0, 0), {}, "weights must select at least one expert"),
        ("della", (1, 1, 1), {"density": 0.1}, "density . epsilon and density . epsilon must be between 0 and 1"),
        ("breadcrumbs_ties", (1, 1, 1), {"top": 60, "keep": 50}, "at most the 40 percent that top = 60 leaves, got 50"),
        ("nuslerp", (1, 1, 1), {}, "nuslerp: takes two experts, got 3"),
        ("multislerp", (1, -1, 0), {}, "weights of a mean must not add up to 0"),
        ("nearswap", (1, 1, 0), {}, "nearswap: takes one expert, got 2: choose by --expert"),
        ("karcher", (1, 0.5, 1), {}, "weights select experts and must be 0 or 1"),
    ],
)
def test_bad_weights_and_parameters_are_refused(method: str, weights: tuple, params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        combine(method, one([1.0, 2.0], [2.0, 1.0], [0.0, 1.0]), weights, **params)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("linear", "--method: 'linear' is mergekit's name of what is weighted with aggregate mean here"),
        ("dare_linear", "--method: 'dare_linear' is mergekit's name of what is dare with rescale l1 here"),
        ("task_arithmetik", "--method: unknown name 'task_arithmetik'"),
    ],
)
def test_names_of_mergekit_get_ours_suggested(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        look_up_method(name, "--method")


def test_directions_that_cancel_out_are_named() -> None:
    angles = [0, 2 * math.pi / 3, 4 * math.pi / 3]
    experts = one(*([math.cos(a), math.sin(a)] for a in angles))
    with pytest.raises(ValueError, match="multislerp: the experts' directions in w cancel out"):
        combine("multislerp", experts)
    assert combine("multislerp", one([1.0], [-1.0]))["w"].tolist() == [0.0]
