"""Proves what an arm means: its groups, its dimensions, and the recipe of each point."""

from typing import Any

import pytest
from toy import TASKS, toy_spec

from pipeline.plan.groups import Group, Template, is_fine_tuned, make_groups, pre_trained
from pipeline.recipe import Recipe
from search.space import Choice, Float


def groups(arm: dict[str, Any], **spec: Any) -> list[Group]:
    made = toy_spec(arms={"x": arm}, **spec)
    return make_groups("x", made.arms["x"], made)


def test_an_edit_is_one_group_for_each_expert_with_its_task_as_target() -> None:
    made = groups({"edit": "each_expert", "scaling": {"function": "linear", "alpha": 0.3, "beta": "1 - alpha"}})
    assert [g.key for g in made] == [("x", t) for t in TASKS]
    assert made[1].recipe({}) == Recipe.make("single", "linear", 0.3, 0.7, (0, 1, 0))
    assert made[1].roles == {"cats": "control", "dogs": "target", "cars": "control", "cats_ood": "ood"}


def test_named_experts_alone_are_edited() -> None:
    assert [g.name for g in groups({"edit": ["cars", "cats"]})] == ["cars", "cats"]
    assert [g.name for g in groups({"edit": "dogs"})] == ["dogs"]


def test_a_merge_is_one_group_with_every_task_as_target() -> None:
    (group,) = groups({"merge": "sum", "scaling": {"alpha": 0.4}})
    assert group.key == ("x", "") and set(group.roles.values()) == {"target", "ood"}
    assert group.recipe({}) == Recipe.make("sum", alpha=0.4)


def test_a_merge_of_some_experts_has_the_other_tasks_as_controls() -> None:
    (group,) = groups({"merge": "sum", "experts": ["cars"]})
    assert group.roles == {"cats": "control", "dogs": "control", "cars": "target", "cats_ood": "ood"}
    assert group.recipe({}).weights == (0, 0, 1)


def test_the_target_may_have_another_name_than_the_expert() -> None:
    experts, targets = {"tuned": "toy/x", **{t: f"toy/{t}" for t in TASKS[1:]}}, {"tuned": "cats"}
    made = groups({"edit": "each_expert"}, experts=experts, targets=targets)
    assert made[0].name == "tuned" and made[0].roles["cats"] == "target"


def test_grids_ranges_and_numbers_become_dimensions_and_constants() -> None:
    scaling = {
        "function": "power",
        "alpha": {"grid": [0.0, 0.5, "...", 1.5]},
        "beta": {"range": [0.1, 2.0], "log": True},
        "params": {"p": {"range": [1, 3], "step": 1}},
    }
    weights = {"cats": {"grid": [0, 1]}, "cars": 0.5}
    (group,) = groups(
        {
            "merge": {"method": "weighted", "weights": weights},
            "scaling": scaling,
            "search": {"sampler": "random", "trials": 2},
        }
    )
    assert group.space.dims == (
        Choice("weights.cats", (0.0, 1.0)),
        Choice("alpha", (0.0, 0.5, 1.0, 1.5)),
        Float("beta", 0.1, 2.0, log=True),
        Float("p", 1.0, 3.0, step=1.0),
    )
    point = {"weights.cats": 1.0, "alpha": 0.5, "beta": 1.5, "p": 2.0}
    assert group.recipe(point) == Recipe.make("weighted", "power", 0.5, 1.5, (1, 0, 0.5), {"p": 2})


def test_steps_keep_their_order_and_have_dimensions_of_their_own() -> None:
    then = [{"step": "norm_match", "params": {"by": "whole"}}, "b", {"step": "b", "params": {"x": {"grid": [1, 2]}}}]
    (group,) = groups({"merge": {"method": "sum", "then": then}, "scaling": {"alpha": 0.5}})
    assert group.space.dims == (Choice("b2.x", (1.0, 2.0)),)
    recipe = group.recipe({"b2.x": 2.0})
    steps = [("norm_match", {"by": "whole"}), ("b", {}), ("b", {"x": 2})]
    assert recipe == Recipe.make("sum", alpha=0.5).followed_by(steps)
    assert Template.from_recipe(recipe).recipe({}) == recipe


def test_knots_may_be_searched_one_by_one() -> None:
    knots = [0.0, {"grid": [0.2, 0.8]}, 1.0]
    (group,) = groups(
        {"merge": "sum", "scaling": {"function": "piecewise", "alpha": "auto", "beta": 1, "params": {"knots": knots}}}
    )
    assert group.space.dims == (Choice("knots.1", (0.2, 0.8)),)
    recipe = group.recipe({"knots.1": 0.8})
    assert recipe.alpha == "auto" and dict(recipe.params) == {"knots": (0, 0.8, 1)}


def test_a_grid_of_one_value_is_a_constant() -> None:
    (group,) = groups({"merge": "sum", "scaling": {"alpha": {"grid": [0.7]}}})
    assert not group.space.dims and group.recipe({}).alpha == 0.7


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.25, 1.0])
def test_one_minus_alpha_follows_alpha(alpha: float) -> None:
    scaling = {"function": "linear", "alpha": {"range": [0, 1]}, "beta": "1-alpha"}
    (group,) = groups({"merge": "sum", "scaling": scaling, "search": {"sampler": "random", "trials": 1}})
    recipe = group.recipe({"alpha": alpha})
    assert recipe == Recipe.make("sum", "linear", alpha, 1 - alpha)


def test_the_pre_trained_model_is_the_zero_recipe_with_every_experts_task_as_target() -> None:
    group = pre_trained(toy_spec())
    assert group.recipe({}) == Recipe.make("zero") and group.key == ("pre-trained", "")


@pytest.mark.parametrize(("scaling", "plain"), [({}, True), ({"alpha": 0.5}, False), ({"outside": 1}, False)])
def test_an_expert_whose_arm_says_nothing_of_lambda_is_the_reference(scaling: dict[str, Any], plain: bool) -> None:
    (group,) = groups({"edit": "cats", "scaling": scaling})
    assert is_fine_tuned(group) == plain
