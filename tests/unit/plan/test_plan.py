"""Proves the plan of a run: references once, arms, matched controls, and one seed for each search."""

from typing import Any

import pytest
from toy import TASKS, toy_spec

from pipeline.plan.controls import flatten
from pipeline.plan.groups import Chosen, Group
from pipeline.plan.plan import Plan, make_plan, proposer
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


def test_an_arm_of_unscaled_experts_gives_the_references_its_name() -> None:
    laid = plan({"our experts": {"edit": "each_expert"}, "LiNeS": LINES})
    assert [g.arm for g in laid.references] == ["pre-trained", *["our experts"] * 3]
    assert not named(laid.searched, "our experts") and not named(laid.groups, "fine-tuned")


def test_every_lines_arm_has_controls_and_no_other_arm_has() -> None:
    laid = plan({"LiNeS": LINES, "merge": {"merge": "sum"}}, controls=["uniform", "reversed"])
    controls = {(g.arm, g.control_of, g.control) for g in laid.groups if g.control}
    names = {"uniform": "uniform", "equal norm": "equal_norm", "constant": "constant", "reversed": "reversed"}
    assert controls == {(f"LiNeS, {name}", "LiNeS", control) for name, control in names.items()}
    for control in names:
        assert [g.name for g in named(laid.groups, f"LiNeS, {control}")] == list(TASKS)


def test_controls_keep_the_lambda_outside_the_blocks() -> None:
    fixed = {**LINES, "scaling": {**LINES["scaling"], "outside": 0.3}}  # type: ignore[dict-item]
    laid = plan({"LiNeS": fixed}, controls=["uniform", "reversed"])
    recipe = Recipe.make("single", "linear", 0.5, 0.5, (1, 0, 0), {"lambda_outside": 0.3})
    arm = named(laid.searched, "LiNeS")[0]
    assert arm.recipe({"alpha": 0.5}) == recipe
    for control in ("constant", "reversed"):
        made = named(laid.searched, f"LiNeS, {control}")[0].recipe({"alpha": 0.5})
        assert dict(made.params) == {"lambda_outside": 0.3}
    flat = flatten(named(laid.searched, "LiNeS, uniform")[0], [Chosen(arm, {"alpha": 0.5})]).recipe({})
    assert (flat.scaling, flat.params) == ("uniform:linear", recipe.params)
    assert [dict(g.recipe({}).params) for g in laid.references] == [{}] * 4


def test_the_lambda_outside_the_blocks_is_searched_like_alpha() -> None:
    both = {"edit": "each_expert", "scaling": {"outside": {"grid": [0, 1]}}}
    group = named(plan({"both": both}).searched, "both")[0]
    points = [group.recipe(point) for point in group.space.grid()]
    assert points == [
        Recipe.make("single", alpha=1, weights=(1, 0, 0), params={"lambda_outside": 0}),
        Recipe.make("single", alpha=1, weights=(1, 0, 0)),
    ]
    fixed = named(plan({"only blocks": {"edit": "each_expert", "scaling": {"outside": 0.5}}}).searched, "only blocks")
    assert len(fixed) == 3  # not the references


def test_factors_of_components_are_searched_and_have_constants_without_them_as_controls() -> None:
    components = {"mlp": {"grid": [0.5, 2]}, "scale": 0, "norms": 1}
    scaling = {"alpha": 1, "scale": {"grid": [0.5, 1]}, "components": components, "patterns": {"scale": "scale"}}
    laid = plan({"x": {"edit": "each_expert", "scaling": scaling}}, controls=["uniform", "reversed"])
    arm = named(laid.searched, "x")[0]
    params = {"component.mlp": 2, "component.scale": 0, "pattern.scale": "scale"}
    chosen = Chosen(arm, {"component.mlp": 2, "scale": 0.5})
    assert chosen.recipe == Recipe.make("single", "constant", 0.5, 0, (1, 0, 0), params)
    assert {g.arm for g in laid.searched} == {"x", "x, constant", "x, uniform", "x, equal norm"}
    flat = flatten(named(laid.searched, "x, uniform")[0], [chosen]).recipe({})
    assert (flat.scaling, dict(flat.params)) == ("uniform:constant", params)
    (curve, *_) = named(laid.searched, "x, constant")
    assert max(alphas(curve)) == 2 and not curve.recipe({"alpha": 0.5}).has_components


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"components": {"mpl": 1}}, "arms.x.scaling.components: unknown component 'mpl'; did you mean 'mlp'"),
        ({"patterns": {"gate": "x"}}, "arms.x.scaling.patterns.gate: has no factor"),
    ],
)
def test_components_are_checked_with_the_spec(scaling: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan({"x": {"merge": "sum", "scaling": scaling}})


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
        (
            {"function": "grouped", "alpha": 0, "beta": 1, "params": {"factors": [0, {"range": [0, 1.2]}, 1]}},
            1.2,
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


@pytest.mark.parametrize(("name", "prefix"), [("uniform", "uniform"), ("equal norm", "equal_norm")])
def test_derived_controls_flatten_the_chosen_candidate(name: str, prefix: str) -> None:
    laid = plan({"LiNeS": LINES}, controls=["uniform"])
    parent, control = named(laid.searched, "LiNeS")[0], named(laid.searched, f"LiNeS, {name}")[0]
    assert control.derivation is not None and control.derivation.parents == (parent.key,)
    assert control.space.dims == ()
    chosen = flatten(control, [Chosen(parent, {"alpha": 0.5})])
    assert chosen.recipe({}) == Recipe.make("single", f"{prefix}:linear", 0.5, 0.5, (1, 0, 0))
    constant = Chosen(parent, {"alpha": 1})
    assert flatten(control, [constant]).recipe({}) == constant.recipe == Recipe.make("single", weights=(1, 0, 0))


def test_unscaled_experts_have_no_derived_controls_even_if_they_name_a_function() -> None:
    arms = {"x": {"edit": "each_expert", "scaling": {"function": "linear", "alpha": 1, "beta": 0}}}
    laid = plan(arms, controls=["uniform"])
    assert [g.arm for g in laid.references[1:]] == ["x"] * 3
    assert {g.arm for g in laid.searched} == {"x, constant"}


def test_wise_ft_multiplies_lambda() -> None:
    scaling = {"function": "linear", "alpha": 0.5, "beta": 0.5, "scale": {"grid": [0, 0.5, 1]}}
    (group, *_) = named(plan({"x": {"edit": "each_expert", "scaling": scaling}}, controls=[]).searched, "x")
    recipes = [group.recipe(point) for point in group.space.grid()]
    assert [(r.alpha, r.beta) for r in recipes] == [(0, 0), (0.25, 0.25), (0.5, 0.5)]
    assert recipes[0].method == "zero"


def test_a_greedy_soup_searches_its_experts_and_another_arm_scales_it() -> None:
    lines = {"merge": {"of": "soup"}, "scaling": {"function": "linear", "alpha": 1, "beta": {"grid": [0, 0.5]}}}
    soup = {"merge": "average", "experts": ["cats", "cars"], "search": {"sampler": "greedy"}}
    laid = plan({"soup": soup, "soup + LiNeS": lines}, controls=["uniform", "reversed"])
    (group,), (scaled,) = named(laid.searched, "soup"), named(laid.searched, "soup + LiNeS")
    assert [d.name for d in group.space.dims] == ["weights.cats", "weights.cars"]
    both = Chosen(group, {"weights.cats": 1, "weights.cars": 1})
    assert both.recipe == Recipe.make("average", weights=(1, 0, 1))
    assert group.recipe({"weights.cats": 0, "weights.cars": 1}) == Recipe.make("single", weights=(0, 0, 1))
    assert scaled.derivation is not None and scaled.roles == group.roles
    complete = scaled.derivation.complete(scaled, [both])
    assert complete.recipe({"beta": 0.5}) == Recipe.make("average", "linear", 1, 0.5, (1, 0, 1))
    (reversed_,) = named(laid.searched, "soup + LiNeS, reversed")
    assert reversed_.derivation is not None and reversed_.derivation.parents == (("soup", ""),)


@pytest.mark.parametrize(
    ("scaling", "point"),
    [
        ({"alpha": {"grid": [0, 0.5]}}, {"alpha": 0}),  # the recipe is the pre-trained model, which no scaling changes
        ({"function": "power", "alpha": 0, "beta": 1, "params": {"p": {"grid": [2, 3]}}}, {"p": 3}),
    ],
)
def test_an_arm_uses_the_merge_of_another_but_not_its_scaling(scaling: dict[str, Any], point: dict[str, Any]) -> None:
    ties = {"method": "ties", "params": {"keep": 30}, "then": ["norm_match"]}
    merge = {"merge": ties, "experts": ["cats", "cars"], "scaling": scaling}
    arm = {"merge": {"of": "merge"}, "scaling": {"function": "linear", "alpha": "auto", "beta": {"grid": [0, 0.5]}}}
    parent, child = plan({"merge": merge, "scaled": {**arm, "score": "targets"}}, controls=[]).searched
    assert set(parent.roles.values()) - set(child.roles.values()) == {"control"}
    assert child.derivation is not None
    recipe = child.derivation.complete(child, [Chosen(parent, point)]).recipe({"beta": 0.5})
    made = Recipe.make("ties", "linear", "auto", 0.5, (1, 0, 1), {"keep": 30})
    assert recipe == made.followed_by([("norm_match", {})])


def test_constants_of_an_arm_that_also_searches_the_merge_use_the_same_sampler() -> None:
    weights = {t: {"range": [0, 1]} for t in TASKS}
    arm = {
        "merge": {"method": "weighted", "weights": weights},
        "scaling": {"function": "linear", "alpha": 1, "beta": {"range": [0, 0.5]}},
        "search": {"sampler": "tpe", "trials": 20},
    }
    laid = plan({"x": arm}, controls=["uniform", "reversed"])
    (group,), (control,) = named(laid.searched, "x"), named(laid.searched, "x, constant")
    assert control.search == group.search
    assert [d.name for d in control.space.dims] == [*(f"weights.{t}" for t in TASKS), "alpha"]
    assert (control.space.dims[-1].low, control.space.dims[-1].high) == (0, 1.5)  # type: ignore[union-attr]


def test_consensus_derives_from_the_lambda_of_each_mask_and_arms_share_the_masks() -> None:
    def merge(**scaling: Any) -> dict[str, Any]:
        params = {"tall_lambda": "auto", "threshold": {"grid": [1, 2]}}
        return {"merge": {"method": "consensus", "params": params}, "scaling": scaling}

    grid = {"grid": [0.5, 1.0]}
    laid = plan({"plain": merge(alpha=grid), "LiNeS": merge(function="linear", alpha="auto", beta=grid)}, controls=[])
    masks = named(laid.searched, "TALL masks")
    assert [(m.kind, m.name, dict(m.roles)) for m in masks] == [("mask", t, {t: "target"}) for t in TASKS]
    points = list(masks[1].space.grid())
    assert masks[1].recipe(points[2]) == Recipe.make("tall_mask", params={"tall_lambda": 0.4, "expert": 1})
    (merged,) = named(laid.searched, "LiNeS")
    assert merged.derivation is not None and merged.derivation.parents == tuple(m.key for m in masks)
    chosen = [Chosen(m, {"tall_lambda": value}) for m, value in zip(masks, (0.2, 0.6, 0.3), strict=True)]
    recipe = merged.derivation.complete(merged, chosen).recipe({"threshold": 1, "beta": 0.5})
    params = {"tall_lambda": (0.2, 0.6, 0.3), "threshold": 1}
    assert recipe == Recipe.make("consensus", "linear", "auto", 0.5, params=params)


def test_a_range_of_whole_numbers_is_tried_on_its_steps() -> None:
    params = {"threshold": {"range": [0, 3], "step": 1}}
    (group,) = plan({"x": {"merge": {"method": "consensus", "params": params}}}, controls=[]).searched
    assert [p["threshold"] for p in group.space.grid()] == [0, 1, 2, 3]


def test_every_search_has_its_own_seed_which_the_runs_seed_changes() -> None:
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
