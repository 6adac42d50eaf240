"""Proves that a design fills any space from its centre, and that a search which starts with it can be resumed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from search.design import farthest_first, spread
from search.proposer import Outcome, Proposal
from search.sampling import SearchConfig, make_proposer
from search.space import Choice, Float, Space

SQUARE = Space((Float("a", 0.0, 1.0), Float("b", -2.0, 2.0)))


def test_the_centre_comes_first_and_then_the_corners() -> None:
    points = [tuple(p.values()) for p in spread(SQUARE, 5)]
    assert points[0] == (0.5, 0.0)
    assert set(points[1:]) == {(0.0, -2.0), (0.0, 2.0), (1.0, -2.0), (1.0, 2.0)}


@given(st.integers(1, 5), st.integers(2, 12))
def test_no_place_is_farther_from_the_design_than_its_points_are_from_each_other(dims: int, count: int) -> None:
    places = np.random.default_rng(dims).random((60, dims))
    chosen = places[farthest_first(places, count)]
    assert cdist(places, chosen).min(1).max() <= pdist(chosen).min() + 1e-6


def test_a_longer_design_continues_a_shorter_one() -> None:
    assert spread(SQUARE, 20)[:9] == spread(SQUARE, 9)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 30])
def test_every_point_is_in_its_space(count: int) -> None:
    kinds = (Float("log", 0.01, 10.0, log=True), Float("step", 0.1, 0.7, step=0.2), Choice("f", ("x", "y", "z")))
    plain = tuple(Float(f"w{i}", 0.0, 0.3) for i in range(count))
    space = Space((*kinds, *plain)[:count])
    points = spread(space, 12)
    for point in points:
        space.check(point)
    assert len({str(p) for p in points}) == len(points) == 12


def test_a_logarithmic_range_is_halved_on_its_scale() -> None:
    (centre,) = spread(Space((Float("p", 0.25, 4.0, log=True),)), 1)
    assert centre == {"p": 1.0}


def test_a_small_space_gives_each_point_once() -> None:
    space = Space((Choice("k", (1, 2)), Float("a", 0.0, 1.0, step=0.5)))
    points = spread(space, 10)
    assert sorted(map(str, points)) == sorted(map(str, space.grid()))
    assert spread(Space((Float("a", 0.5, 0.5),)), 3) == [{"a": 0.5}]


@pytest.mark.parametrize("crash", [2, 6])
def test_a_search_starts_with_the_design_and_continues_after_a_crash(crash: int) -> None:
    config = SearchConfig("gp", 6, 1, 3, {"startup": "spread", "startup_trials": 4})
    proposer, proposals, outcomes = make_proposer(SQUARE, config), [], []
    resumed: list[Proposal | None] = []
    while (proposal := proposer.ask()) is not None:
        proposals.append(proposal)
        if len(proposals) == crash:
            again = make_proposer(SQUARE, config)
            again.replay(proposals[:-1], outcomes)
            resumed.append(again.ask())
        value = None if proposal.number == 1 else (-((float(proposal.point["a"]) - 0.3) ** 2),)
        outcomes.append(Outcome(proposal.number, value))
        proposer.tell(outcomes[-1])
    assert [p.point for p in proposals[:4]] == spread(SQUARE, 4)
    assert all(p.point not in spread(SQUARE, 4) for p in proposals[4:])
    assert resumed == [proposals[crash - 1]]
