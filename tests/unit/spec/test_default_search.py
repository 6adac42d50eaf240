"""Proves which arms are searched by a few proposals if no sampler is named, and that all others are as before."""

from typing import Any

import pytest
from toy import toy_spec

from pipeline.plan.plan import make_plan, proposer
from pipeline.spec.arms import Arm, Search
from pipeline.spec.default_search import ONE_DIMENSION, SEVERAL_DIMENSIONS, SPREAD, with_default_search
from pipeline.spec.load import parse_spec
from search.design import spread

RANGE = {"range": [0, 1]}
PLANE = {"function": "linear", "alpha": RANGE, "beta": RANGE}


def search_of(**arm: Any) -> Search:
    return Arm.model_validate({"edit": "each_expert", **arm}).search


def test_ranges_get_a_few_candidates_that_begin_with_a_design() -> None:
    search = search_of(scaling=PLANE)
    assert (search.sampler, search.trials) == ("gp", SEVERAL_DIMENSIONS)
    assert search.options == {"startup": "spread", "startup_trials": SPREAD}


def test_one_dimension_gets_fewer() -> None:
    search = search_of(scaling={"function": "linear", "alpha": RANGE, "beta": "1 - alpha"})
    assert (search.trials, search.options["startup_trials"]) == (ONE_DIMENSION, min(SPREAD, ONE_DIMENSION // 2))
    assert search_of(scaling={"function": "linear", "alpha": RANGE, "beta": {"grid": [0, 1]}}).trials > ONE_DIMENSION


@pytest.mark.parametrize(
    "arm",
    [
        {"edit": None, "merge": {"method": "weighted", "weights": {"cats": RANGE, "dogs": 1}}},
        {"edit": None, "merge": {"method": "weighted", "lambdas": RANGE}},
        {"scaling": {"function": "piecewise", "beta": 1, "params": {"knots": [0, RANGE]}}},
        {"scaling": {"alpha": {"range": [0.1, 1], "log": True}}},
    ],
)
def test_ranges_are_found_in_weights_and_parameters(arm: dict[str, Any]) -> None:
    assert search_of(**arm).sampler == "gp"


@pytest.mark.parametrize(
    "arm",
    [
        {},
        {"scaling": {"alpha": {"grid": [0, 0.5, 1]}}},
        {"scaling": {"alpha": {"range": [0, 1], "step": 0.25}}},
        {"scaling": PLANE, "search": {"sampler": "grid"}},
        {"scaling": PLANE, "search": {"sampler": "tpe", "trials": 30}},
    ],
)
def test_all_that_ran_before_is_as_it_was(arm: dict[str, Any]) -> None:
    assert search_of(**arm) == Search(**arm.get("search", {}))


def test_what_is_given_is_kept() -> None:
    search = search_of(scaling=PLANE, search={"trials": 6, "in_flight": 2, "options": {"startup_trials": 2}})
    assert (search.trials, search.in_flight) == (6, 2)
    assert search.options == {"startup": "spread", "startup_trials": 2}


def test_the_recorded_spec_names_all_of_it_and_is_read_back_equal() -> None:
    arms = {"LiNeS": {"edit": "each_expert", "scaling": PLANE}}
    spec = parse_spec({**toy_spec().model_dump(mode="json"), "arms": arms})
    recorded = spec.model_dump(mode="json")
    assert recorded["arms"]["LiNeS"]["search"]["sampler"] == "gp"
    assert parse_spec(recorded) == spec
    group = make_plan(spec).searched[0]
    first = proposer(group, spec).ask()
    assert first is not None and first.point == spread(group.space, 1)[0]


def test_one_candidate_is_drawn_and_none_is_an_error() -> None:
    arm = {"merge": "sum", "scaling": {"alpha": {"range": [0, 1]}}}
    assert with_default_search({**arm, "search": {"trials": 1}})["search"] == {"sampler": "random", "trials": 1}
    assert with_default_search({**arm, "search": {"trials": 0}})["search"]["trials"] == 0
