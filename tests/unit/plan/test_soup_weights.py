"""Proves that a soup's points are weights on the simplex, and that its arms and controls have the right recipes."""

from typing import Any

import numpy as np
import pytest
from small_soup import soup_spec

from pipeline.plan.groups import Chosen
from pipeline.plan.plan import make_plan
from pipeline.plan.soups import lambda_dimensions, soup_weights
from pipeline.recipe import Recipe
from pipeline.spec.load import SpecError, parse_spec
from pipeline.spec.run import RunSpec
from pipeline.spec.values import Range
from search.space import Space


def weights_of(lambdas: Any, count: int) -> list[tuple[float, ...]]:
    space = Space(tuple(lambda_dimensions(lambdas, count)))
    return [soup_weights(point, count) for point in space.grid()]


def parsed(**merge: Any) -> RunSpec:
    arms = {"soup": {"merge": {"method": "weighted", **merge}}}
    return parse_spec(soup_spec(arms=arms, controls=[]))


def test_points_of_two_policies_run_from_the_second_to_the_first() -> None:
    assert weights_of(3, 2) == [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]


@pytest.mark.parametrize(("points", "count", "expected"), [(11, 2, 11), (11, 3, 66), (3, 4, 10)])
def test_points_along_an_edge_give_the_whole_simplex(points: int, count: int, expected: int) -> None:
    found = weights_of(points, count)
    assert len(set(found)) == len(found) == expected
    assert all(min(w) >= 0 and sum(w) == pytest.approx(1, abs=1e-6) for w in found)
    assert tuple(float(i == 0) for i in range(count)) in found


def test_too_many_points_for_the_memory_are_refused() -> None:
    assert len(weights_of(1001, 2)) == 1001
    with pytest.raises(ValueError, match="at most 1,000,000 points, got more, by 1001 on each edge of 8 experts"):
        lambda_dimensions(1001, 8)


def test_a_stick_cut_by_uniform_numbers_is_uniform_on_the_simplex() -> None:
    space = Space(tuple(lambda_dimensions(Range(range=(0.0, 1.0)), 3)))
    rng = np.random.default_rng(0)
    points = [dict(zip(space.optuna(), map(float, rng.random(2)), strict=True)) for _ in range(4000)]
    found = np.array([soup_weights(p, 3) for p in points])
    assert found.min() >= 0 and np.allclose(found.sum(axis=1), 1)
    # Dirichlet(1, 1, 1): every weight has mean 1/3 and variance 1/18.
    assert np.allclose(found.mean(axis=0), 1 / 3, atol=0.015) and np.allclose(found.var(axis=0), 1 / 18, atol=0.006)


def test_ends_of_lambda_are_the_policies_themselves() -> None:
    plan = make_plan(parse_spec(soup_spec()))
    plain = next(g for g in plan.searched if g.arm == "soup")
    first, middle, last = (plain.recipe(p) for p in plain.space.grid())
    alone = {g.name: g.recipe({}) for g in plan.references if g.name}
    assert (first, last) == (alone["open"], alone["brief"])
    assert middle == Recipe.make("weighted", weights=(0.5, 0.5))


def test_controls_run_along_lambda_with_the_scaling_in_front() -> None:
    plan = make_plan(parse_spec(soup_spec()))
    found = {g.arm: [g.recipe(p).scaling for p in g.space.grid()] for g in plan.searched}
    assert found == {
        "soup": ["constant"] * 3,
        "LiNeS": ["linear"] * 3,
        "LiNeS, uniform": ["uniform:linear"] * 3,
        "LiNeS, reversed": ["reversed:linear"] * 3,
    }
    assert {g.control for g in plan.searched if g.control_of == "LiNeS"} == {"uniform", "reversed"}


def test_a_soup_of_some_experts_leaves_the_others_out() -> None:
    spec = soup_spec(controls=[])
    spec["experts"] = {"brief": "a", "open": "b", "third": "c"}
    spec["targets"] = {"third": "open"}
    spec["arms"] = {"soup": {"merge": {"method": "weighted", "lambdas": 3}, "experts": ["brief", "third"]}}
    group = make_plan(parse_spec(spec)).searched[0]
    assert [group.recipe(p).weights for p in group.space.grid()] == [(0, 0, 1), (0.5, 0, 0.5), (1, 0, 0)]


def test_experts_of_a_soup_in_another_order_than_the_run_has_are_refused() -> None:
    """Otherwise their lambdas could be read in either order."""
    arm = {"merge": {"method": "weighted", "lambdas": [[0.2, 0.8]]}, "experts": ["open", "brief"]}
    with pytest.raises(ValueError, match=r"arms.soup: experts: must be in the run's order, brief, open"):
        make_plan(parse_spec(soup_spec(arms={"soup": arm}, controls=[])))


def test_coarse_points_of_many_policies_take_no_time() -> None:
    found = weights_of(3, 20)
    assert len(set(found)) == 210 and all(sum(w) == pytest.approx(1) for w in found)


def test_a_rescaled_soup_keeps_its_weights() -> None:
    soup = {"merge": {"method": "weighted", "lambdas": 3}}
    of = {"merge": {"of": "soup"}, "scaling": {"function": "linear", "alpha": 1, "beta": 1}}
    plan = make_plan(parse_spec(soup_spec(arms={"soup": soup, "scaled": of}, controls=[])))
    parent, scaled = plan.searched
    assert scaled.derivation is not None
    chosen = scaled.derivation.complete(scaled, [Chosen(parent, {"lambda": 0.25})])
    assert chosen.recipe({}) == Recipe.make("weighted", "linear", 1, 1, (0.25, 0.75))


def test_samplers_search_lambda_alpha_and_beta_together() -> None:
    arm = {
        "merge": {"method": "weighted", "lambdas": {"range": [0, 1]}},
        "scaling": {"function": "linear", "alpha": {"range": [0.5, 1.5]}, "beta": {"range": [0, 1]}},
        "search": {"sampler": "nsga2", "trials": 20, "options": {"population_size": 8}},
        "select": {"maximise": ['task["brief"]', 'task["open"]']},
    }
    plan = make_plan(parse_spec(soup_spec(arms={"searched": arm})))
    assert [[d.name for d in g.space.dims] for g in plan.searched] == [["lambda", "alpha", "beta"]] * 3


@pytest.mark.parametrize(
    ("lambdas", "message"),
    [
        ({"grid": [0, 0.5, 1.2]}, r"lambdas: must be in \[0, 1\], got 1.2"),
        ({"grid": [-0.1, 0.5]}, r"lambdas: must be in \[0, 1\], got -0.1"),
        ({"range": [0, 2]}, r"lambdas: must be in \[0, 1\], got 2"),
        ([[0.2, 0.9]], r"lambdas: weights must be at least 0 and sum to 1, got \[0.2, 0.9\]"),
        ([[1.5, -0.5]], r"lambdas: weights must be at least 0 and sum to 1, got \[1.5, -0.5\]"),
        (1, "lambdas: must be at least 2, got 1"),
        ("all", "lambdas: must be a number of points"),
    ],
)
def test_weights_outside_the_simplex_are_refused(lambdas: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parsed(lambdas=lambdas)


def test_weights_for_another_number_of_experts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"arms.soup: merge.lambdas: needs one weight for each of 2 experts, got \["):
        make_plan(parsed(lambdas=[[0.2, 0.3, 0.5]]))


def test_lambdas_need_the_method_weighted() -> None:
    with pytest.raises(SpecError, match="lambdas: must be used with the method weighted"):
        parse_spec(soup_spec(arms={"soup": {"merge": {"method": "sum", "lambdas": 3}}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": None}, "generation: is required, as tasks.brief is a reward"),
        ({"tasks": {"brief": "rewards.py:f", "open": "fashion"}}, "tasks.open: must be a reward"),
        ({"limits": {"val": 3}}, "set generation.prompts.limits"),
        ({"shard_size": 6}, "shard_size: must be a multiple of generation.batch_size, 4, .* got 6"),
        ({"select": {"maximise": "target"}}, r"unknown|metric"),
        ({"arms": {"a": {"merge": "fisher"}}}, "arms.a.merge.method: fisher learns from labelled data, but"),
        (
            {"arms": {"a": {"merge": {"method": "consensus", "params": {"tall_lambda": "auto"}}}}},
            "arms.a.merge.params.tall_lambda: auto is chosen by accuracies",
        ),
        (
            {"exhibits": {"T": {"kind": "table", "columns": {"c": "accuracy"}, "rows": {"r": "soup"}}}},
            "exhibits.T: shows accuracies, but the tasks of this run are rewards",
        ),
    ],
)
def test_what_has_no_meaning_in_a_run_of_rewards_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(parse_spec(soup_spec(**changes)))


def test_several_samples_need_a_temperature() -> None:
    generation = soup_spec()["generation"] | {"samples": 2}
    with pytest.raises(SpecError, match="generation.samples: 2 completions of a prompt are the same at temperature 0"):
        parse_spec(soup_spec(generation=generation))
