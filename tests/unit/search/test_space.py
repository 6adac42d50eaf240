"""Proves that a space lists its grid in declared order and refuses dimensions that cannot be searched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution

from search.space import Choice, Float, Space


def test_grid_varies_the_first_dimension_slowest() -> None:
    space = Space((Choice("f", ("linear", "sqrt")), Choice("k", (2, 4, 6)), Float("beta", 0.0, 0.5, step=0.5)))
    points = space.grid()
    assert len(points) == 2 * 3 * 2
    assert points[:3] == [
        {"f": "linear", "k": 2, "beta": 0.0},
        {"f": "linear", "k": 2, "beta": 0.5},
        {"f": "linear", "k": 4, "beta": 0.0},
    ]
    assert points[-1] == {"f": "sqrt", "k": 6, "beta": 0.5}
    for point in points:
        space.check(point)


def test_steps_give_the_numbers_that_users_write() -> None:
    assert Float("alpha", 0.0, 1.0, step=0.1).values() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@given(st.integers(1, 200), st.integers(-50, 50), st.sampled_from([1e-4, 0.05, 0.1, 1 / 3, 2.5]))
def test_a_stepped_range_has_both_ends_and_stays_inside(count: int, start: int, step: float) -> None:
    low = start * step
    dim = Float("x", low, low + count * step, step=step)
    values = [float(v) for v in dim.values()]
    assert len(values) == count + 1 and values == sorted(set(values))
    assert values[0] == pytest.approx(dim.low) and values[-1] == pytest.approx(dim.high)


def test_a_space_without_dimensions_has_one_point() -> None:
    assert list(Space().grid()) == [{}]


def test_optuna_gets_the_same_ranges_in_declared_order() -> None:
    space = Space((Float("b", 0.1, 10.0, log=True), Float("a", 1, 7, step=3), Choice("f", ("x", 2, 0.5))))
    assert list(space.optuna().items()) == [
        ("b", FloatDistribution(0.1, 10.0, log=True)),
        ("a", FloatDistribution(1, 7, step=3)),
        ("f", CategoricalDistribution(("x", 2, 0.5))),
    ]


def test_bad_dimensions_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="alpha grid empty"):
        Choice("alpha", ())
    with pytest.raises(ValueError, match="alpha: each value may be listed once"):
        Choice("alpha", (0.5, 1, 1.0))
    with pytest.raises(ValueError, match="alpha: numbers must be finite"):
        Choice("alpha", (0.5, float("nan")))
    with pytest.raises(ValueError, match="beta: low and high must be finite with low <= high, got 1.0 and 0.0"):
        Float("beta", 1.0, 0.0)
    with pytest.raises(ValueError, match="beta: low and high must be finite"):
        Float("beta", 0.0, float("inf"))
    with pytest.raises(ValueError, match="beta: step must divide high - low"):
        Float("beta", 0.0, 1.0, step=0.3)
    with pytest.raises(ValueError, match="beta: step must be positive, got 0"):
        Float("beta", 1, 5, step=0)
    with pytest.raises(ValueError, match="beta: a log scale needs low > 0"):
        Float("beta", 0.0, 1.0, log=True)


def test_bad_spaces_and_grids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must differ, got \['k'\]"):
        Space((Float("k", 1, 2), Float("k", 1, 3)))
    with pytest.raises(ValueError, match="beta: a grid needs a step"):
        Space((Float("beta", 0.0, 1.0),)).grid()
    with pytest.raises(ValueError, match="at most 1,000,000 points, got 100,000,000"):
        Space(tuple(Float(f"w{i}", 1, 10, step=1) for i in range(8))).grid()


def test_points_of_another_space_are_refused() -> None:
    space = Space((Float("beta", 0.0, 1.0), Choice("f", ("linear",))))
    with pytest.raises(ValueError, match=r"dimensions must be \['beta', 'f'\], got \['beta'\]"):
        space.check({"beta": 0.5})
    with pytest.raises(ValueError, match="beta must be in .*got 1.5"):
        space.check({"beta": 1.5, "f": "linear"})
    with pytest.raises(ValueError, match="beta must be in .*got 0.3"):
        Space((Float("beta", 0.0, 1.0, step=0.25),)).check({"beta": 0.3})
    with pytest.raises(ValueError, match="f must be in .*got 'sqrt'"):
        space.check({"beta": 0.5, "f": "sqrt"})


def test_a_large_grid_costs_nothing_before_its_points_are_asked_for() -> None:
    grid = Space(tuple(Float(f"w{i}", 0, 9, step=1) for i in range(6))).grid()
    assert len(grid) == 1_000_000
    assert list(grid[123_456].values()) == [1, 2, 3, 4, 5, 6]
    assert grid[-1] == dict.fromkeys([f"w{i}" for i in range(6)], 9)
    small = Space((Choice("f", ("a", "b")), Float("x", 0, 2, step=1))).grid()
    assert [small[i] for i in range(6)] == list(small) == small[:]
    with pytest.raises(IndexError):
        small[6]


@pytest.mark.parametrize(
    ("low", "high", "step", "message"),
    [
        (0, 1, 1e-7, "x: a grid has at most 1,000,000 values, got 10,000,001: give a larger step"),
        (0, 1, 1e-10, "x: at most 1,000,000,000 steps, got 1e.10: give a larger step"),
        (0, 1e100, 1e-300, "x: at most 1,000,000,000 steps, got inf"),
    ],
)
def test_steps_that_would_fill_the_memory_are_refused(low: float, high: float, step: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Space((Float("x", low, high, step=step),)).grid()
