"""Proves that a rebuild is in place, equals the oracle bit for bit, repeats, is finite and never silently idle."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from module_tree import module_of, parameters
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.merging.flat import Arena, fingerprint
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts
from pipeline.merging.resident import ResidentModel
from pipeline.merging.task_vectors import NamedTensors, task_vector
from pipeline.recipe import Recipe
from tasks.base import LayerMap, NonFiniteError

ORACLE = Path(__file__).parents[2] / "data" / "oracle"
CPU = torch.device("cpu")


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


BASE = {
    "stem": torch.tensor([1.0, 2.0, 3.0]),
    "blocks.0.w": torch.tensor([[0.5, -0.5]]),
    "blocks.1.w": torch.tensor([[4.0, 0.25]]),
    "head": torch.tensor(7.0),
}
DELTAS = {
    "one": {name: torch.full_like(t, 0.125) for name, t in BASE.items()},
    "two": {name: t * 0.3 for name, t in BASE.items()},
}


def toy(
    dtype: torch.dtype = torch.float32,
    deltas: Mapping[str, Mapping[str, Tensor]] = DELTAS,
    base: Mapping[str, Tensor] = BASE,
) -> tuple[nn.Module, ResidentModel]:
    module = module_of(base)
    layer_map = LayerMap.from_pattern(base, r"blocks\.(\d+)\.")
    return module, ResidentModel(module, layer_map, base, deltas, CPU, dtype)


@pytest.fixture(scope="module")
def oracle() -> tuple[nn.Module, ResidentModel]:
    base = load_file(ORACLE / "base.safetensors")
    experts = {f"task{i}": load_file(ORACLE / f"finetuned_{i}.safetensors") for i in range(3)}
    deltas = {
        name: task_vector(NamedTensors("base", base), NamedTensors(name, state)) for name, state in experts.items()
    }
    module = module_of(base)
    layer_map = LayerMap.from_pattern(base, r"model\.visual\.transformer\.resblocks\.(\d+)\.")
    return module, ResidentModel(module, layer_map, base, deltas, CPU, torch.float32)


@pytest.mark.parametrize(
    ("file", "recipe"),
    [
        ("base", Recipe.make("zero")),
        ("lines_sum_a0.25_b0.3", Recipe.make("sum", "linear", 0.25, 0.3)),
        ("lines_sum_a0.0_b1.0", Recipe.make("sum", "linear", 0.0, 1.0)),
        ("lines_sum_a1.0_b-0.5", Recipe.make("sum", "linear", 1.0, -0.5)),
        ("lines_single0_gamma0.0", Recipe.make("single", "linear", 0.0, 1.0, (1, 0, 0))),
        ("lines_single0_gamma0.3", Recipe.make("single", "linear", 0.3, 0.7, (1, 0, 0))),
    ],
)
def test_equals_the_oracle_bit_for_bit(oracle: tuple[nn.Module, ResidentModel], file: str, recipe: Recipe) -> None:
    module, resident = oracle
    resident.materialise(recipe)
    assert same(parameters(module), load_file(ORACLE / f"{file}.safetensors"))


def test_alpha_is_resolved_on_the_resident_vectors(oracle: tuple[nn.Module, ResidentModel]) -> None:
    module, resident = oracle
    alphas = [resident.materialise(Recipe.make("sum", "linear", word, 0.3)).alpha for word in ("auto", "auto_l2")]
    assert alphas == pytest.approx([1 / 3, 1 / 3], rel=1e-6)
    assert resident.materialise(Recipe.make("average", "linear", "auto", 0.3)).alpha == pytest.approx(1, rel=1e-6)
    # Seven digits of alpha give the same weights as the word.
    by_word = resident.materialise(Recipe.make("average", "linear", "auto", 0.3, (1, 1, 0)))
    weights = parameters(module)
    assert resident.materialise(Recipe.make("average", "linear", by_word.alpha, 0.3, (1, 1, 0))) == by_word
    assert same(parameters(module), weights)


@pytest.mark.parametrize(
    ("scaling", "alpha", "beta"), [("linear", 0.25, 0.3), ("quadratic", "auto", 0.3), ("sqrt", 0.2, -0.9)]
)
def test_equal_norm_moves_the_weights_as_far_as_the_profile_does(
    oracle: tuple[nn.Module, ResidentModel], scaling: str, alpha: float | str, beta: float
) -> None:
    module, resident = oracle
    moved = {}
    for control in ("", "equal_norm:"):
        applied = resident.materialise(Recipe.make("sum", control + scaling, alpha, beta))
        moved[control] = {name: w.double() - resident.base[name] for name, w in parameters(module).items()}
    length = {control: sum(float(d.square().sum()) for d in change.values()) for control, change in moved.items()}
    assert length["equal_norm:"] == pytest.approx(length[""], rel=1e-4)  # float32 weights, of which a little is moved
    # One constant for all, which is reported as alpha.
    combined = METHODS["sum"].combine(Experts(resident.deltas), (1, 1, 1), {})
    assert applied.alpha < 0 if beta < 0 else applied.alpha > 0
    for name, change in moved["equal_norm:"].items():
        torch.testing.assert_close(change.float(), combined[name] * applied.alpha, rtol=0, atol=1e-6)
    again = resident.materialise(Recipe.make("sum", "constant", applied.alpha))
    assert again == applied


RECIPES = st.builds(
    Recipe.make,
    st.sampled_from(["zero", "sum", "average", "weighted"]),
    st.sampled_from(["constant", "linear", "cosine", "reversed:sqrt", "uniform:linear", "equal_norm:linear"]),
    st.sampled_from([0.25, 1, "auto", "auto_l2"]),
    st.sampled_from([0, 0.5, -0.1]),
    st.sampled_from([(), (1, 0), (0, 1)]),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(RECIPES, min_size=1, max_size=6), RECIPES, st.sampled_from([torch.float32, torch.bfloat16]))
def test_weights_depend_on_the_recipe_alone(others: list[Recipe], recipe: Recipe, dtype: torch.dtype) -> None:
    """A -> b -> a gives the same bits, whatever stood in the module or in the cache before."""
    fresh, resident = toy(dtype)
    expected = resident.materialise(recipe)
    used, resident = toy(dtype)
    for other in others:
        resident.materialise(other)
    assert resident.materialise(recipe) == expected
    assert same(parameters(fresh), parameters(used))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_combines_in_float32_and_casts_once(dtype: torch.dtype) -> None:
    module, resident = toy(dtype)
    resident.materialise(Recipe.make("weighted", "linear", 0.1, 0.6, (0.7, 0.3)))
    for name, weights in module.named_parameters():
        coefficient = 0.7 if name.startswith("blocks.1") else 0.1
        combined = DELTAS["one"][name] * 0.7 + DELTAS["two"][name] * 0.3
        assert torch.equal(weights, (BASE[name] + combined * coefficient).to(dtype))


def test_rebuilds_in_place_and_keeps_what_is_not_a_parameter() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    module[2].weight = module[0].weight
    base = {name: p.detach().clone() for name, p in module.named_parameters()}
    delta = {name: torch.ones_like(t) for name, t in base.items()}
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    resident = ResidentModel(module, LayerMap.from_pattern(base, r"(\d)\."), base, {"a": delta}, CPU, torch.float32)
    at = {name: p.data_ptr() for name, p in module.named_parameters()}
    resident.materialise(Recipe.make("single", alpha=0.5))
    assert {name: p.data_ptr() for name, p in module.named_parameters()} == at
    assert all(pointer % 64 == 0 for pointer in at.values())
    assert module[2].weight is module[0].weight
    assert torch.equal(module[2].weight, base["0.weight"] + 0.5)
    assert same(dict(module.named_buffers()), buffers)
    assert not any(p.requires_grad for p in module.parameters())


def test_zero_is_theta0_exactly_and_fingerprints_tell_weights_apart() -> None:
    module, resident = toy()
    assert same(parameters(module), BASE)
    applied = [resident.materialise(Recipe.make("single", alpha=a, weights=(1, 0))) for a in (0.5, 0.6, 0)]
    assert len({a.fingerprint for a in applied}) == 3
    assert applied[2].fingerprint == resident.base_fingerprint
    assert same(parameters(module), BASE)


def test_a_recipe_may_ask_for_the_base() -> None:
    only_stem = {name: torch.ones_like(t) if name == "stem" else torch.zeros_like(t) for name, t in BASE.items()}
    _, resident = toy(deltas={"stem": only_stem})
    for recipe in (
        Recipe.make("zero"),
        Recipe.make("sum", "linear", 0, 1),  # the stem's coefficient is 0, and nothing else differs
        Recipe.make("weighted", weights=(0,)),
    ):
        assert resident.materialise(recipe).fingerprint == resident.base_fingerprint


def test_a_merge_that_silently_does_nothing_is_an_error() -> None:
    _, resident = toy(deltas={"copy": {name: torch.zeros_like(t) for name, t in BASE.items()}})
    with pytest.raises(ValueError, match="are the experts copies of the base"):
        resident.materialise(Recipe.make("sum"))
    _, resident = toy(torch.bfloat16, deltas={"tiny": {name: t * 1e-5 for name, t in BASE.items()}})
    with pytest.raises(ValueError, match=r"below the resolution of torch\.bfloat16"):
        resident.materialise(Recipe.make("sum"))


def test_a_change_that_the_sample_misses_is_not_an_error() -> None:
    base = {"blocks.0.w": torch.zeros(200_000)}
    delta = torch.zeros(200_000)
    delta[1] = 1.0
    _, resident = toy(deltas={"sparse": {"blocks.0.w": delta}}, base=base)
    assert resident.materialise(Recipe.make("sum")).fingerprint == resident.base_fingerprint


@pytest.mark.parametrize(
    ("dtype", "recipe"),
    [
        (torch.float16, Recipe.make("sum", alpha=1e6)),
        (torch.float32, Recipe.make("sum", alpha=1e39)),
        (torch.float32, Recipe("sum", "linear", 1.0, float("inf"))),
        (torch.float32, Recipe("weighted", "constant", 1.0, 0, (float("nan"), 1))),
    ],
)
def test_non_finite_weights_are_a_typed_error_and_leave_no_trace(dtype: torch.dtype, recipe: Recipe) -> None:
    module, resident = toy(dtype)
    with pytest.raises(NonFiniteError, match="non-finite"):
        resident.materialise(recipe)
    resident.materialise(Recipe.make("zero"))
    assert all(bool(p.isfinite().all()) for p in module.parameters())


def test_large_weights_within_the_type_are_no_error() -> None:
    module, resident = toy(torch.float16)
    resident.materialise(Recipe.make("single", alpha=5e5, weights=(1, 0)))  # 62,507 at most; float16 ends at 65,504
    assert bool(module.get_parameter("head").isfinite())


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe.make("summ"), "method: unknown name 'summ'; did you mean 'sum'"),
        (Recipe.make("sum", "liner", 0, 1), "did you mean 'linear'"),
        (Recipe.make("sum", weights=(1, 1, 1)), "one for each of 2 experts, got 3"),
    ],
)
def test_recipes_that_do_not_fit(recipe: Recipe, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy()[1].materialise(recipe)


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="task vector of bad: does not match the base: missing: head"):
        toy(deltas={"bad": {name: t for name, t in BASE.items() if name != "head"}})
    layer_map = LayerMap({"blocks.9.w": 0}, 1)
    with pytest.raises(ValueError, match="parameters that the module does not have: blocks.9.w"):
        ResidentModel(module_of(BASE), layer_map, BASE, DELTAS, CPU, torch.float32)
    with pytest.raises(ValueError, match="the base: does not match the module: missing: head"):
        base = {name: t for name, t in BASE.items() if name != "head"}
        ResidentModel(module_of(BASE), LayerMap({}, 0), base, DELTAS, CPU, torch.float32)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.data(), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_fingerprint_sees_any_one_element_of_a_small_model(size: int, data: st.DataObject, dtype: torch.dtype) -> None:
    flat = torch.randn(size).to(dtype)
    before = fingerprint(flat)
    flat[data.draw(st.integers(0, size - 1))] += 1
    assert fingerprint(flat) != before


def test_parameters_that_share_a_coefficient_are_adjacent_in_an_arena() -> None:
    layer_map = LayerMap.from_pattern(BASE, r"blocks\.(\d+)\.")
    arena = Arena.plan({name: t.shape for name, t in BASE.items()}, layer_map)
    assert [g.start for g in arena.groups] == [0, 128, 192]
    assert arena.groups[-1].stop == arena.size == 256
    assert same(arena.flat(BASE, CPU), BASE)
