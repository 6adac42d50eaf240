"""Proves that low-rank task vectors give the weights of their dense equals, in the memory of their factors."""

import gc
from collections.abc import Mapping, Sequence
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.merging.low_rank import LowRank, LowRankDelta, combine_low_rank, low_rank_sum
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Method
from pipeline.merging.resident import ResidentModel
from pipeline.merging.task_vectors import norm, resolve_alpha
from pipeline.recipe import Number, Recipe
from tasks.base import LayerMap, NonFiniteError

CPU = torch.device("cpu")
SHAPES = {
    "stem": (64, 48),
    "blocks_0_w": (96, 64),
    "blocks_0_bias": (96,),
    "blocks_1_w": (64, 96),
    "blocks_1_kernel": (4, 3, 2, 2),
    "head": (10, 64),
}
FACTORS = ("blocks_0_w", "blocks_1_w", "head")


def random(seed: int) -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return {name: torch.randn(*shape, generator=noise) for name, shape in SHAPES.items()}


def low_rank(seed: int, rank: int = 3, names: Sequence[str] = FACTORS) -> LowRankDelta:
    noise = torch.Generator().manual_seed(seed)
    shapes = {name: torch.Size(shape) for name, shape in SHAPES.items()}
    factors = {
        name: LowRank(
            0.1 * torch.randn(shapes[name][0], rank, generator=noise),
            0.1 * torch.randn(rank, shapes[name][1], generator=noise),
        )
        for name in names
    }
    return LowRankDelta(factors, shapes)


def dense(delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(delta.items())


def resident(
    deltas: Sequence[Mapping[str, Tensor]], dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, ResidentModel]:
    base = random(0)
    module = nn.ParameterDict({name: nn.Parameter(torch.empty_like(t)) for name, t in base.items()})
    layer_map = LayerMap.from_pattern(base, r"blocks_(\d+)_")
    experts = {f"e{i}": delta for i, delta in enumerate(deltas)}
    return module, ResidentModel(module, layer_map, base, experts, CPU, dtype)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def assert_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor], atol: float = 0) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=atol)


def test_an_entry_is_dense_when_it_is_read_and_zero_without_factors() -> None:
    delta = low_rank(1)
    assert list(delta) == list(SHAPES) and len(delta) == len(SHAPES)
    for name, tensor in delta.items():
        assert tensor.shape == SHAPES[name] and tensor.dtype == torch.float32
        expected = delta.factors[name].b @ delta.factors[name].a if name in FACTORS else torch.zeros(SHAPES[name])
        assert torch.equal(tensor, expected)
    assert delta["head"] is not delta["head"]
    assert delta.numel == 3 * (96 + 64 + 64 + 96 + 10 + 64)
    assert "head" in delta and "heads" not in delta
    with pytest.raises(KeyError):
        delta["heads"]


@pytest.mark.parametrize(
    ("name", "message"), [("other", "must give a parameter of the model"), ("stem", r"\(64, 48\), got \(5, 6\)")]
)
def test_factors_of_no_parameter_or_another_shape_are_refused(name: str, message: str) -> None:
    factor = LowRank(torch.ones(5, 1), torch.ones(1, 6))
    with pytest.raises(ValueError, match=f"{name}: its factors .*{message}"):
        LowRankDelta({name: factor}, {"stem": torch.Size((64, 48))})


RECIPES = [
    Recipe.make("single", "linear", 0.3, 0.7, (0, 1)),
    Recipe.make("single", "reversed:linear", 0.3, 0.7, (1, 0)),
    Recipe.make("sum", "linear", "auto", 0.4),
    Recipe.make("average", "linear", "auto_l2", 0.4),
    Recipe.make("weighted", "uniform:linear", 0.5, 0.5, (0.7, -0.2)),
    Recipe.make("weighted", "equal_norm:linear", 0.5, 0.5, (0.7, -0.2)),
    Recipe.make("weighted", "linear", 0.5, 0, (0, 0)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recipe", RECIPES)
def test_gives_the_weights_of_the_dense_task_vectors(recipe: Recipe, dtype: torch.dtype) -> None:
    """One expert bit for bit; a sum of several to a rounding, as its product adds up in another order."""
    deltas = [low_rank(1), low_rank(2, rank=5, names=("stem", "head"))]
    ours, by_factors = resident(deltas, dtype)
    theirs, by_dense = resident([dense(d) for d in deltas], dtype)
    alpha, expected = by_factors.materialise(recipe).alpha, by_dense.materialise(recipe).alpha
    single = recipe.method == "single"
    assert alpha == (expected if single else pytest.approx(expected, rel=1e-6))
    assert_same(weights(ours), weights(theirs), 0 if single else 1e-6 if dtype == torch.float32 else 0.04)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("order", [[0, 1, 0], [2, 5, 3, 2], [5, 4, 0, 5], [6, 2, 6]])
def test_weights_depend_on_the_recipe_alone(order: list[int], dtype: torch.dtype) -> None:
    deltas = [low_rank(1), low_rank(2)]
    module, model = resident(deltas, dtype)
    for index in order:
        last = model.materialise(RECIPES[index])
    fresh, other = resident(deltas, dtype)
    assert other.materialise(RECIPES[order[-1]]) == last
    assert all(torch.equal(a, b) for a, b in zip(weights(module).values(), weights(fresh).values(), strict=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 1, -0.5, 0.25]), min_size=3, max_size=3), st.sampled_from([1, 2, 7]))
def test_a_sum_of_factors_is_the_sum_of_their_products(shares: list[Number], rank: int) -> None:
    deltas = [low_rank(1, rank), low_rank(2, 2, ("stem", "head")), low_rank(3, 1, ("stem",))]
    found = low_rank_sum(deltas, shares)
    for name, tensor in found.items():
        expected = sum((d[name] * share for d, share in zip(deltas, shares, strict=True)), torch.zeros(SHAPES[name]))
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)


def test_one_expert_alone_is_not_copied() -> None:
    deltas = [low_rank(1), low_rank(2)]
    assert low_rank_sum(deltas, (0, 1)) is deltas[1]


def combined(method: str, deltas: Sequence[Mapping[str, Tensor]], shares: Sequence[Number]) -> LowRankDelta | None:
    return combine_low_rank(METHODS[method], deltas, shares, {})


def test_what_stays_low_rank() -> None:
    a, b, full = low_rank(1), low_rank(2), dense(low_rank(3))
    assert combined("sum", [a, b], (1, 1)) is not None
    assert combined("sum", [a, full], (1, 0)) is a
    assert combined("sum", [a, full], (1, 1)) is None
    assert combined("sum", [full, full], (1, 1)) is None
    sparse = Method("not a sum", METHODS["sum"].prepare)
    assert combine_low_rank(sparse, [a, b], (1, 1), {}) is None
    many = [low_rank(seed, rank=8) for seed in range(9)]
    assert sum(d.numel for d in many) > sum(map(prod, SHAPES.values())) > sum(d.numel for d in many[:3])
    assert combined("sum", many, (1,) * 9) is None
    assert combined("sum", many, (1,) * 3 + (0,) * 6) is not None


def test_low_rank_and_dense_experts_merge() -> None:
    a, full = low_rank(1), {name: 0.01 * t for name, t in random(7).items()}
    recipe = Recipe.make("sum", "linear", "auto", 0.3)
    ours, mixed = resident([a, full])
    theirs, plain = resident([dense(a), full])
    assert mixed.materialise(recipe) == plain.materialise(recipe)
    assert_same(weights(ours), weights(theirs))


def test_equation_2_and_norms_are_of_the_dense_vectors() -> None:
    deltas = [low_rank(1), low_rank(2, names=("stem", "head"))]
    total = low_rank_sum(deltas, (1, 1))
    same = [dense(d) for d in deltas]
    for word in ("auto", "auto_l2"):
        assert resolve_alpha(word, deltas, total) == resolve_alpha(word, same, dense(total)) == pytest.approx(0.5)
    assert norm(total.values()) == norm(dense(total).values())


def held_bytes() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    tensors = [o for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter)]
    alive = [t.untyped_storage() for t in tensors if t.layout == torch.strided]
    return sum({s.data_ptr(): s.nbytes() for s in alive}.values())


@pytest.mark.slow
def test_an_adapter_takes_the_memory_of_its_factors() -> None:
    deltas = [low_rank(seed, rank=2) for seed in (1, 2)]
    factors = 4 * sum(d.numel for d in deltas)
    none, plain = resident([])
    without = held_bytes()
    del none, plain
    module, model = resident(deltas)
    # The factors themselves were alive before, and on the same device they are not copied.
    assert held_bytes() == without
    model.materialise(Recipe.make("single", "linear", 0.3, 0.7, (1, 0)))
    assert held_bytes() == without
    model.materialise(Recipe.make("sum", "linear", "auto", 0.7))
    assert held_bytes() == without + factors
    assert factors < 0.3 * 4 * sum(p.numel() for p in module.parameters())


def test_adapters_that_do_nothing_or_diverged_are_errors() -> None:
    shapes = {name: torch.Size(shape) for name, shape in SHAPES.items()}
    for value, error, message in ((0.0, ValueError, "copies of the base"), (torch.inf, NonFiniteError, "non-finite")):
        factor = LowRank(torch.full((10, 2), value), torch.ones(2, 64))
        _, model = resident([LowRankDelta({"head": factor}, shapes)])
        with pytest.raises(error, match=message):
            model.materialise(Recipe.make("sum"))
    _, tiny = resident(
        [LowRankDelta({"head": LowRank(torch.ones(10, 1), 1e-6 * torch.ones(1, 64))}, shapes)], torch.bfloat16
    )
    with pytest.raises(ValueError, match="below the resolution"):
        tiny.materialise(Recipe.make("sum"))
