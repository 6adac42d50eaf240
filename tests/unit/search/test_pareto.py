"""Proves fronts, hypervolumes and attainment against slow definitions."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from search.pareto import attainment, hypervolume, non_dominated

# Few distinct values make ties and equal points common.
coordinates = st.integers(0, 6).map(float)


def fronts(objectives: int) -> st.SearchStrategy[npt.NDArray[np.float64]]:
    return st.integers(1, 12).flatmap(lambda n: hnp.arrays(np.float64, (n, objectives), elements=coordinates))


points = st.integers(1, 4).flatmap(fronts)


def dominates(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> bool:
    return bool((p >= q).all() and (p > q).any())


def slow_front(array: npt.NDArray[np.float64]) -> list[bool]:
    return [not any(dominates(p, q) for p in array) for q in array]


@given(points)
def test_non_dominated_is_the_definition(array: npt.NDArray[np.float64]) -> None:
    assert non_dominated(array).tolist() == slow_front(array)


@given(points, coordinates)
def test_hypervolume_counts_the_unit_cells_below(array: npt.NDArray[np.float64], reference: float) -> None:
    objectives = array.shape[1]
    corners = itertools.product(range(int(reference) + 1, 7), repeat=objectives)
    cells = sum(bool((array >= np.array(corner)).all(axis=1).any()) for corner in corners)
    assert hypervolume(array, [reference] * objectives) == pytest.approx(cells)


@settings(max_examples=50)
@given(st.lists(fronts(2), min_size=1, max_size=8))
def test_attainment_is_the_share_of_fronts_that_reach_a_point(sets: list[npt.NDArray[np.float64]]) -> None:
    levels = (2.5, 50.0, 97.5, 100.0)
    result = attainment(sets, levels)
    for level, x, y in itertools.product(levels, range(7), range(7)):
        share = sum(bool((front >= [x, y]).all(axis=1).any()) for front in sets) / len(sets)
        corners = result[level]
        assert bool((corners >= [x, y]).all(axis=1).any()) == (share >= level / 100)


def test_a_staircase_rises_in_the_first_objective_and_falls_in_the_second() -> None:
    rng = np.random.default_rng(0)
    result = attainment([rng.random((20, 2)) for _ in range(40)])
    assert list(result) == [2.5, 50, 97.5]
    for corners in result.values():
        assert (np.diff(corners[:, 0]) > 0).all() and (np.diff(corners[:, 1]) < 0).all()
    assert hypervolume(result[2.5], [0, 0]) > hypervolume(result[50], [0, 0]) > hypervolume(result[97.5], [0, 0])


def test_no_points_make_no_front() -> None:
    empty = np.empty((0, 2))
    assert non_dominated(empty).shape == (0,)
    assert hypervolume(empty, [0, 0]) == 0.0


def test_bad_points_are_refused() -> None:
    for bad in ([1.0, 2.0], [[1.0, np.nan]], [[np.inf, 0.0]]):
        with pytest.raises(ValueError, match="finite"):
            non_dominated(bad)
    with pytest.raises(ValueError, match="one value an objective"):
        hypervolume([[1.0, 2.0]], [0.0])
    with pytest.raises(ValueError, match="at least one front"):
        attainment([])
    with pytest.raises(ValueError, match="front 1 must be"):
        attainment([[[1.0, 2.0]], np.empty((0, 2))])
    with pytest.raises(ValueError, match="levels must be in"):
        attainment([[[1.0, 2.0]]], levels=(0,))
