"""Proves on which tasks unscaled experts are scored: their own, and those on which something shows or compares them."""

from typing import Any

import pytest
from small_soup import soup_spec
from toy import TASKS, toy_spec

from pipeline.plan.plan import make_plan
from pipeline.spec.load import parse_spec

MERGE = {"sum": {"merge": "sum", "scaling": {"alpha": {"grid": [0.2, 0.3]}}}}
EDIT = {"half": {"edit": ["dogs"], "scaling": {"alpha": 0.5}}}
OWN = {task: [task] for task in TASKS}
ALL = {task: [*TASKS, "cats_ood"] for task in TASKS}


def table(*metrics: str) -> dict[str, Any]:
    """An exhibit with one column a metric, of the experts."""
    return {"kind": "table", "columns": {m: m for m in metrics}, "rows": {"Experts": "fine-tuned"}}


def scored(**changes: Any) -> dict[str, list[str]]:
    """Return expert -> the tasks of its reference; the pre-trained model is always scored on all."""
    first, *experts = make_plan(toy_spec(controls=[], **changes)).references
    assert list(first.roles) == [*TASKS, "cats_ood"]
    return {group.name: list(group.roles) for group in experts}


def test_an_expert_that_is_only_merged_is_scored_on_its_own_task() -> None:
    assert scored(arms=MERGE) == OWN
    assert scored(arms={"consensus": {"merge": {"method": "consensus", "params": {"tall_lambda": "auto"}}}}) == OWN


def test_an_edit_needs_its_expert_wherever_it_is_scored_itself() -> None:
    assert scored(arms=MERGE | EDIT) == OWN | {"dogs": ALL["dogs"]}
    targets = {"half": {**EDIT["half"], "score": "targets"}}
    assert scored(arms=targets) == OWN | {"dogs": ["dogs", "cats_ood"]}
    assert scored(arms=targets | {"third": {"edit": ["dogs"], "scaling": {"alpha": 0.3}}})["dogs"] == ALL["dogs"]


def test_an_arm_of_unscaled_experts_is_scored_as_the_user_wrote_it() -> None:
    assert scored(arms=MERGE | {"fine-tuned": {"edit": "each_expert"}}) == ALL
    assert scored(arms=MERGE | {"own": {"edit": ["cats"]}}) == {"cats": ALL["cats"], "dogs": ["dogs"], "cars": ["cars"]}


@pytest.mark.parametrize(
    ("exhibit", "roles"),
    [
        (table("accuracy", "normalised", "alpha"), {"target"}),
        (table("accuracy", "control"), {"target", "control"}),
        (table("ood"), {"target", "ood"}),
        ({"kind": "scatter", "arms": ["fine-tuned"]}, {"target", "control"}),
        ({"kind": "bars", "arms": ["fine-tuned", "pre-trained"], "metric": "accuracy"}, {"target"}),
        ({"kind": "bars", "arms": ["sum", "pre-trained"], "metric": "accuracy"}, {"target"}),
    ],
    ids=["own tasks", "controls", "shifted", "scatter", "bars", "others"],
)
def test_an_exhibit_of_the_experts_needs_what_it_shows(exhibit: dict[str, Any], roles: set[str]) -> None:
    plan = make_plan(toy_spec(controls=[], arms=MERGE, exhibits={"one": exhibit}))
    assert [set(group.roles.values()) for group in plan.references[1:]] == [roles] * 3


def test_bounds_rewards_and_runs_of_older_versions_need_all_tasks() -> None:
    assert scored(arms=MERGE, regress={"arms": ["fine-tuned"]}) == ALL
    assert scored(arms=MERGE, regress={"arms": ["sum"]}) == OWN
    plan = make_plan(toy_spec(arms=MERGE, controls=[]), whole_references=True)
    assert [list(group.roles) for group in plan.references] == [[*TASKS, "cats_ood"]] * 4
    soup = parse_spec(soup_spec())
    assert all(list(group.roles) == list(soup.tasks) for group in make_plan(soup).references)
