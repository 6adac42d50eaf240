"""Proves that a recipe is small and complete in its bytes, and that equal recipes have equal ids."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe import Recipe, canonical_number

NUMBERS = st.floats(-10, 10, allow_subnormal=False) | st.integers(-10, 10)
SCALINGS = st.sampled_from(
    ["constant", "linear", "sqrt", "quadratic", "reversed:quadratic", "uniform:power", "piecewise", "grouped"]
)
PARAMS = st.dictionaries(st.sampled_from(["p", "keep"]), NUMBERS | st.tuples(NUMBERS, NUMBERS), max_size=2)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    alpha = draw(NUMBERS | st.sampled_from(["auto", "auto_l2"]))
    weights = tuple(draw(st.lists(NUMBERS, max_size=8)))
    made = Recipe.make(
        draw(st.sampled_from(["sum", "weighted"])), draw(SCALINGS), alpha, draw(NUMBERS), weights, draw(PARAMS)
    )
    return made.followed_by(draw(st.lists(st.tuples(st.sampled_from(["a", "b"]), PARAMS), max_size=2)))


@given(recipes())
def test_the_bytes_hold_the_whole_recipe(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(recipe.canonical())) == recipe


@given(recipes(), recipes())
def test_ids_are_equal_if_recipes_and_checkpoints_are(a: Recipe, b: Recipe) -> None:
    assert (a.id("f") == b.id("f")) == (a == b)
    assert a.id("f") != a.id("g")
    assert len(a.id("f")) == 16 and hash(a) == hash(Recipe.from_json(a.to_json()))


SHORT = st.integers(-9999, 9999).map(lambda n: n / 10_000)
DIGITS = st.floats(0.001, 9.9)


@given(SCALINGS, DIGITS, DIGITS, st.lists(SHORT, min_size=8, max_size=8))
def test_eight_experts_take_at_most_128_bytes(scaling: str, alpha: float, beta: float, weights: list[float]) -> None:
    assert len(Recipe.make("weighted", scaling, alpha, beta, tuple(weights)).canonical()) <= 128


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_in_canonical_form_stays_as_it_is(x: float) -> None:
    once = canonical_number(x)
    assert canonical_number(once) == once
    assert once == pytest.approx(x, rel=1e-6)


@given(st.integers(-(10**15) + 1, 10**15 - 1))
def test_counts_and_seeds_stay_exact(n: int) -> None:
    assert canonical_number(n) == canonical_number(float(n)) == n
    assert isinstance(canonical_number(float(n)), int)


def test_numbers_of_equal_print_are_equal() -> None:
    assert Recipe.make("sum", "linear", 0.1 + 0.2, 1.0) == Recipe.make("sum", "linear", 0.3, 1)
    assert Recipe.make("sum", alpha=-0.0, beta=0.0).canonical() == Recipe.make("sum", alpha=0).canonical()


@pytest.mark.parametrize(
    ("recipe", "same"),
    [
        (Recipe.make("sum", "linear", 0.5, 0.0), Recipe.make("sum", "constant", 0.5)),
        (Recipe.make("sum", "constant", 0.5, 0.7), Recipe.make("sum", "constant", 0.5)),
        (Recipe.make("sum", "reversed:linear", 0.5, 0), Recipe.make("sum", "constant", 0.5)),
        (Recipe.make("sum", "linear", 0, 0), Recipe.make("zero")),
        (Recipe.make("average", "constant", 0, 0, (1, 0)), Recipe.make("zero")),
        (Recipe.make("sum", alpha=0.5, params={"component.mlp": 1.0}), Recipe.make("sum", alpha=0.5)),
        (
            Recipe.make("sum", params={"component.mlp": 1, "component.own": 1, "pattern.own": "x"}),
            Recipe.make("sum", "reversed:linear"),
        ),
        (
            Recipe.make("sum", params={"component.mlp": 0.5, "component.norms": 1}),
            Recipe.make("sum", "reversed:linear", params={"component.mlp": 0.5}),
        ),
        (
            Recipe.make("sum", "uniform:linear", 0.5, params={"component.mlp": 0.5}),
            Recipe.make("sum", "uniform:constant", 0.5, params={"component.mlp": 0.5}),
        ),
        (Recipe.make("sum", "uniform:linear", 0, params={"component.mlp": 0.5}), Recipe.make("zero")),
        (Recipe.make("sum", params={"b": 1.0, "a": (0.0, 1)}), Recipe.make("sum", params={"a": (0, 1), "b": 1})),
    ],
)
def test_recipes_of_the_same_model_are_equal(recipe: Recipe, same: Recipe) -> None:
    assert recipe == same and recipe.canonical() == same.canonical()


def test_golden_bytes_and_id() -> None:
    """Journals and caches of earlier versions find scores by these ids: they must not change."""
    recipe = Recipe.make("single", "linear", 0.3, 0.7, (0, 1, 0))
    assert recipe.canonical() == b'["single","linear",0.3,0.7,[0,1,0],{}]'
    assert recipe.id("fingerprint") == "58a4ebe35ea82c5c"


def test_factors_that_change_something_are_part_of_the_recipe() -> None:
    params = {"component.mlp": 0.5, "component.own": 1, "pattern.own": "gate"}
    recipe = Recipe.make("single", weights=(1, 0), params=params)
    golden = b'["single","constant",1,0,[1,0],{"component.mlp":0.5,"component.own":1,"pattern.own":"gate"}]'
    assert recipe.canonical() == golden and Recipe.from_json(json.loads(golden)) == recipe
    assert recipe.has_components and not recipe.is_expert
    assert Recipe.make("single", weights=(1, 0)).is_expert
    assert Recipe.make("sum", "uniform:linear", 0.5, params=params).scaling == "uniform:constant"


def test_a_lambda_outside_the_blocks_is_part_of_the_recipe_where_it_changes_something() -> None:
    fixed = Recipe.make("sum", "linear", 0.5, 1, params={"lambda_outside": 0.5})
    assert fixed.canonical() == b'["sum","linear",0.5,1,[],{"lambda_outside":0.5}]'
    assert Recipe.from_json(fixed.to_json()) == fixed
    assert Recipe.make("sum", alpha=0.5, params={"lambda_outside": 0.5}) == Recipe.make("sum", alpha=0.5)
    assert Recipe.make("sum", alpha=0, params={"lambda_outside": 0.5}).method == "sum"
    assert Recipe.make("sum", alpha=0, params={"lambda_outside": 0}).method == "zero"


def test_steps_keep_their_order_and_recipes_without_any_their_bytes() -> None:
    plain, steps = Recipe.make("ties", "linear", "auto", 0.5, (1, 0)), [("b", {"y": 1.0, "x": (2.0, 3)}), ("a", {})]
    assert plain.canonical() == b'["ties","linear","auto",0.5,[1,0],{}]' and plain.id("f") == "0fac1c8eb519701d"
    assert plain.followed_by(steps).to_json()[6] == [["b", {"x": [2, 3], "y": 1}], ["a", {}]]
    assert plain.followed_by(steps) != plain.followed_by(steps[::-1]) and plain.followed_by(()) == plain
    assert str(plain.followed_by(steps)).endswith("then b:x=(2, 3),y=1, then a")
    assert Recipe.make("zero").followed_by(steps) == Recipe.make("zero")
