"""Proves that lambda over depth equals equation 1, its published variants and their controls, by closed forms."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.merging.control_constants import Cell, equal_norm
from pipeline.merging.scaling import (
    SCALINGS,
    Coefficients,
    LayerSizes,
    alpha_is_constant,
    coefficients,
    split_control,
)
from pipeline.recipe import Recipe

NUMBERS = st.floats(-3, 3).map(lambda x: round(x, 3))
#: At least three blocks, as "grouped" has three groups by default.
SIZES = st.builds(LayerSizes, st.integers(0, 1000), st.lists(st.integers(1, 1000), min_size=3, max_size=12).map(tuple))


def lambdas(scaling: str, alpha: float, beta: float, sizes: LayerSizes, **params: object) -> Coefficients:
    return coefficients(Recipe("sum", scaling, alpha, beta, (), tuple(params.items())), sizes, alpha)  # type: ignore[arg-type]


def cells(norms: list[float]) -> dict[Cell, float]:
    """Norms outside the blocks and in each, without factors of components."""
    return {(place, 1.0): norm for place, norm in enumerate(norms)}


@pytest.mark.parametrize(
    ("scaling", "params", "f"),
    [
        ("constant", {}, lambda d: 0.0),
        ("linear", {}, lambda d: d),
        ("sqrt", {}, lambda d: d**0.5),
        ("quadratic", {}, lambda d: d**2),
        ("power", {"p": 3.0}, lambda d: d**3),
        ("cosine", {}, lambda d: math.sin(math.pi * d / 2) ** 2),
        ("piecewise", {"knots": (0.0, 1.0, 0.0)}, lambda d: 1 - abs(2 * d - 1)),
        ("grouped", {"factors": (0.7,)}, lambda d: 0.7),
    ],
)
@given(alpha=NUMBERS, beta=NUMBERS, sizes=SIZES)
def test_closed_forms(scaling: str, params: dict, f, alpha: float, beta: float, sizes: LayerSizes) -> None:
    last = max(1, len(sizes.blocks) - 1)
    expected = [alpha + beta * f(block / last) for block in range(len(sizes.blocks))]
    result = lambdas(scaling, alpha, beta, sizes, **params)
    assert result.outside == alpha
    assert result.blocks == pytest.approx(expected)


@pytest.mark.parametrize("scaling", SCALINGS)
@given(alpha=NUMBERS, beta=NUMBERS, sizes=SIZES)
def test_uniform_is_one_constant_of_equal_mean(scaling: str, alpha: float, beta: float, sizes: LayerSizes) -> None:
    plain, uniform = (lambdas(prefix + scaling, alpha, beta, sizes) for prefix in ("", "uniform:"))
    counts = (sizes.outside, *sizes.blocks)
    assert len(set(uniform.all)) == 1
    mean = sum(n * x for n, x in zip(counts, plain.all, strict=True)) / sum(counts)
    assert uniform.outside == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("scaling", SCALINGS)
@given(alpha=NUMBERS, beta=NUMBERS, blocks=st.integers(3, 12))
def test_reversed_mirrors_the_blocks_and_leaves_the_outside(
    scaling: str, alpha: float, beta: float, blocks: int
) -> None:
    sizes = LayerSizes(5, (1,) * blocks)
    plain, mirrored = (lambdas(prefix + scaling, alpha, beta, sizes) for prefix in ("", "reversed:"))
    assert mirrored.outside == plain.outside == alpha
    assert mirrored.blocks == pytest.approx(plain.blocks[::-1])


@pytest.mark.parametrize("scaling", SCALINGS)
@given(alpha=NUMBERS, beta=NUMBERS, sizes=SIZES, data=st.data())
def test_equal_norm_is_one_constant_of_equal_norm(
    scaling: str, alpha: float, beta: float, sizes: LayerSizes, data: st.DataObject
) -> None:
    groups = 1 + len(sizes.blocks)
    norms = data.draw(st.lists(st.floats(0.01, 10), min_size=groups, max_size=groups))
    recipe = Recipe("sum", f"equal_norm:{scaling}", alpha, beta)
    plain, constant = lambdas(scaling, alpha, beta, sizes).all, equal_norm(recipe, sizes, alpha, cells(norms))
    length = math.dist([x * n for x, n in zip(plain, norms, strict=True)], [0] * groups)
    assert abs(constant) * math.hypot(*norms) == pytest.approx(length, rel=1e-6, abs=1e-12)
    towards = sum(x * n for x, n in zip(plain, norms, strict=True))
    assert constant == 0 or abs(towards) < 1e-9 or (constant > 0) == (towards > 0)
    assert coefficients(recipe, sizes, constant) == Coefficients(constant, (constant,) * len(sizes.blocks))


def test_equal_norm_by_hand_and_without_a_vector() -> None:
    sizes = LayerSizes(1, (1, 1))
    recipe = Recipe.make("sum", "equal_norm:linear", "auto", 0.3)
    assert alpha_is_constant(recipe) and not alpha_is_constant(Recipe.make("sum", "uniform:linear", "auto", 0.3))
    assert recipe.to_json()[:4] == ["sum", "equal_norm:linear", "auto", 0.3]
    # lambda = 0.1, 0.1, 0.4: the root of (0.01 * 9 + 0.16 * 16) / 25
    assert equal_norm(recipe, sizes, 0.1, cells([3, 0, 4])) == 0.3255764
    with pytest.raises(ValueError, match="'equal_norm:linear' is not defined: the combined task vector is 0"):
        equal_norm(recipe, sizes, 0.1, cells([0, 0, 0]))


def test_lambda_outside_the_blocks_is_fixed_in_a_recipe_and_in_its_controls() -> None:
    sizes, fixed = LayerSizes(100, (10, 30)), {"lambda_outside": 0.4}
    assert lambdas("linear", 0.1, 0.6, sizes, **fixed) == Coefficients(0.4, (0.1, pytest.approx(0.7)))
    assert lambdas("reversed:linear", 0.1, 0.6, sizes, **fixed) == Coefficients(0.4, (pytest.approx(0.7), 0.1))
    mean = pytest.approx((10 * 0.1 + 30 * 0.7) / 40)
    assert lambdas("uniform:linear", 0.1, 0.6, sizes, **fixed) == Coefficients(0.4, (mean, mean))
    recipe = Recipe.make("sum", "equal_norm:linear", 0.1, 0.6, params=fixed)
    constant = equal_norm(recipe, sizes, 0.1, cells([9, 3, 4]))
    assert constant == pytest.approx(math.hypot(0.1 * 3, 0.7 * 4) / 5, rel=1e-6)
    assert coefficients(recipe, sizes, constant) == Coefficients(0.4, (constant, constant))
    with pytest.raises(ValueError, match="lambda_outside: must be a number, got 'alpha'"):
        lambdas("linear", 0.1, 0.6, sizes, lambda_outside="alpha")


def test_two_knots_are_linear_and_default_parameters_are_used() -> None:
    sizes = LayerSizes(1, (1, 1, 1))
    assert lambdas("piecewise", 0, 1, sizes) == lambdas("linear", 0, 1, sizes)
    assert lambdas("power", 0, 1, sizes) == lambdas("quadratic", 0, 1, sizes)


@given(blocks=st.integers(1, 300), data=st.data())
def test_groups_are_as_even_as_possible_and_mirrored_by_the_control(blocks: int, data: st.DataObject) -> None:
    factors = tuple(map(float, range(data.draw(st.integers(1, blocks)))))
    plain, mirrored = (
        lambdas(name, 0, 1, LayerSizes(0, (1,) * blocks), factors=factors).blocks
        for name in ("grouped", "reversed:grouped")
    )
    sizes = [plain.count(factor) for factor in factors]
    assert list(plain) == sorted(plain) and max(sizes) - min(sizes) <= 1
    assert mirrored == plain[::-1]


def test_one_block_has_the_depth_0() -> None:
    assert lambdas("cosine", 0.5, 1, LayerSizes(1, (1,))).blocks == (0.5,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("liner", "unknown name 'liner'; did you mean 'linear'"),
        ("reverse:linear", "unknown control 'reverse' in 'reverse:linear'; did you mean 'reversed'"),
    ],
)
def test_unknown_names_are_refused_with_near_ones(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_control(name)


@pytest.mark.parametrize(
    ("scaling", "params", "message"),
    [
        ("power", {"p": 0.0}, r"p: must be in \(0, inf\), got 0"),
        ("power", {"p": math.nan}, "p: must be in"),
        ("power", {"p": (1.0, 2.0)}, "p: must be a number"),
        ("piecewise", {"knots": (1.0,)}, "knots: must have at least 2 numbers, got 1"),
        ("piecewise", {"knots": 1.0}, "knots: must be a sequence of numbers"),
        ("grouped", {"factors": (1.0, 1.0, 0.0)}, "factors: must have at most one number .* 2 blocks, got 3"),
    ],
)
def test_parameters_outside_their_range_are_refused(scaling: str, params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lambdas(scaling, 1, 1, LayerSizes(1, (1, 1)), **params)


def test_command_line_values() -> None:
    power, knots = SCALINGS["power"].parameters[0], SCALINGS["piecewise"].parameters[0]
    assert power.parse("0.5") == 0.5
    assert knots.parse("0,0.25,1") == (0.0, 0.25, 1.0)
    for parameter, text in ((power, "two"), (power, "1,2"), (power, "-1"), (knots, "1"), (knots, "0,x")):
        with pytest.raises(ValueError, match=f"^{parameter.name}: must"):
            parameter.parse(text)


def test_the_document_has_the_free_scalars_and_the_needs_of_each_function() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "merging.md").read_text(encoding="utf-8")
    rows = [row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", text, re.M) if row.count("|") == 5]
    told = {name: row[3].strip() for row in rows for name in re.findall("`(\\w+)`", row[0])}
    del told["scaling"]
    assert told == {name: ", ".join(scaling.free) for name, scaling in SCALINGS.items()}
    needs = any(s.inputs or s.labels or s.forward_passes for s in SCALINGS.values())
    assert needs != ("No function here needs inputs, labels or forward passes." in text)
    for scaling in SCALINGS.values():
        assert {"alpha", "beta", *(p.name for p in scaling.parameters)} >= {*scaling.free}


def test_specs_and_reports_need_no_torch() -> None:
    code = "import sys, pipeline.merging.scaling, pipeline.merging.needs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
