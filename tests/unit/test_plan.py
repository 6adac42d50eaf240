"""Proves the layout of a run: references once, arms, matched controls; and that each search has a seed of its own."""

from typing import Any

import pytest
from toy import TASKS, toy_spec

from pipeline.arms import Group
from pipeline.plan import Plan, flattened, make_plan, proposer
from pipeline.recipe import Recipe

LINES = {"edit": "each_expert", "scaling": {"function": "linear", "alpha": {"grid": [0, 0.5, 1]}, "beta": "1 - alpha"}}


def plan(arms: dict[str, Any], **spec: Any) -> Plan:
    return make_plan(toy_spec(arms=arms, **spec))


def named(groups: tuple[Group, ...], arm: str) -> list[Group]:
    return [g for g in groups if g.arm == arm]


def alphas(group: Group) -> list[float | str]:
    return [group.recipe(p).alpha for p in group.space.grid()]


def test_references_are_the_pre_trained_model_and_each_expert_as_it_is() -> None:
    laid = plan({"LiNeS": LINES})
    assert [g.key for g in laid.references] == [("pre-trained", ""), *(("fine-tuned", t) for t in TASKS)]
    assert [g.recipe({}) for g in laid.references[1:]] == [
        Recipe.make("single", weights=tuple(int(t == other) for other in TASKS)) for t in TASKS
    ]


def test_an_arm_that_is_the_experts_as_they_are_gives_the_references_its_name() -> None:
    laid = plan({"our experts": {"edit": "each_expert"}, "LiNeS": LINES})
    assert [g.arm for g in laid.references] == ["pre-trained", *["our experts"] * 3]
    assert not named(laid.searched, "our experts") and not named(laid.groups, "fine-tuned")


def test_controls_stand_beside_every_lines_arm_and_no_other() -> None:
    laid = plan({"LiNeS": LINES, "merge": {"merge": "sum"}}, controls=["uniform", "reversed"])
    controls = {(g.arm, g.control_of, g.control) for g in laid.groups if g.control}
    assert controls == {(f"LiNeS, {c}", "LiNeS", c) for c in ("uniform", "constant", "reversed")}
    for control in ("uniform", "constant", "reversed"):
        assert [g.name for g in named(laid.groups, f"LiNeS, {control}")] == list(TASKS)


def test_without_controls_there_are_none() -> None:
    assert not [g for g in plan({"LiNeS": LINES}, controls=[]).groups if g.control]


def test_the_reversed_control_searches_the_same_points_in_mirrored_depth() -> None:
    laid = plan({"LiNeS": LINES}, controls=["reversed"])
    arm, control = named(laid.searched, "LiNeS")[0], named(laid.searched, "LiNeS, reversed")[0]
    assert arm.space == control.space and arm.objectives == control.objectives
    assert control.recipe({"alpha": 0.5}) == Recipe.make("single", "reversed:linear", 0.5, 0.5, (1, 0, 0))


@pytest.mark.parametrize(
    ("scaling", "top", "own"),
    [
        ({"alpha": {"grid": [0, 0.33, 1]}, "beta": "1 - alpha"}, 1.0, {0.33}),
        ({"alpha": "auto", "beta": {"grid": [0.3, 0.5]}}, 1.0, {0.3, 0.5}),
        ({"alpha": "auto", "beta": {"grid": [0.5, 1.0]}}, 4 / 3, {0.5, 1.0}),  # 1/3 by equation 2
        ({"alpha": 2, "beta": {"grid": [-1, 0]}}, 2.0, {0.0, 2.0}),
        (
            {"function": "piecewise", "alpha": 0, "beta": 1, "params": {"knots": [0.5, {"grid": [0, 1.5]}]}},
            1.5,
            {0.0, 1.0},
        ),
        ({"alpha": {"grid": [0, 1]}, "beta": {"grid": [-0.5, 1.5]}}, 2.5, {0.0, 1.0, 1.5}),
        ({"alpha": 0.5, "beta": {"grid": [1.0, 2.0]}}, 2.5, {0.5, 1.0, 2.0}),
    ],
)
def test_the_curve_of_constants_reaches_what_the_arm_can_reach_and_is_no_coarser(
    scaling: dict[str, Any], top: float, own: set[float]
) -> None:
    arms = {"x": {"merge": "sum", "scaling": {"function": "linear", **scaling}}}
    laid = plan(arms, controls={"kinds": ["uniform"], "constants": 6})
    (curve,) = named(laid.searched, "x, constant")
    assert alphas(curve) == sorted({round(top * i / 5, 6) for i in range(6)} | own)


def test_the_equal_mean_control_flattens_what_was_chosen() -> None:
    ((control, parent), *_) = plan({"LiNeS": LINES}, controls=["uniform"]).equal_mean
    assert (control.arm, parent.arm, control.space.dims) == ("LiNeS, uniform", "LiNeS", ())
    chosen = parent.recipe({"alpha": 0.5})
    assert flattened(control, chosen).recipe({}) == Recipe.make("single", "uniform:linear", 0.5, 0.5, (1, 0, 0))
    constant = Recipe.make("single", "constant", 0.5, 0, (1, 0, 0))
    assert flattened(control, constant).recipe({}) == constant


def test_every_search_has_a_seed_of_its_own_that_the_runs_seed_changes() -> None:
    scaling = {"function": "linear", "alpha": {"range": [0, 1]}, "beta": "1 - alpha"}
    arms = {"x": {"edit": "each_expert", "scaling": scaling, "search": {"sampler": "random", "trials": 3}}}
    first = []
    for seed in (0, 1):
        spec = toy_spec(arms=arms, controls=[], seed=seed)
        for group in make_plan(spec).searched:
            asked = [p.point["alpha"] for p in (proposer(group, spec).ask(),) if p]
            assert asked == [p.point["alpha"] for p in (proposer(group, spec).ask(),) if p]
            first += asked
    assert len(set(first)) == 6
