"""Proves that an arena becomes arms of equal budget, that these are read back, and that its mistakes are named."""

import json
from typing import Any

import pytest

from lines_sweep.running import plan_of
from pipeline.plan.plan import make_plan
from pipeline.spec.load import SpecError, parse_spec

BASE = {
    "name": "arena",
    "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
    "base": "embedded/base",
    "experts": {"mnist": "embedded/mnist", "fashion": "embedded/fashion", "kana": "embedded/kana"},
    "tasks": ["mnist", "fashion", "kana"],
}


def spec(own: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    methods = {"sum": "sum", "trimmed": {"method": "ties", "params": {"keep": {"range": [5, 50]}}}}
    arena = {"methods": methods, "profiles": ["linear", "power", "grouped"], "budget": {"evaluations": 12}, **changes}
    return {**BASE, "arena": arena, **(own or {})}


def test_every_method_meets_every_profile_and_the_constant_with_one_budget() -> None:
    plan = make_plan(parse_spec(spec(sets={"two": ["mnist", "fashion"], "all": None})))
    found = {group.arm: group for group in plan.searched}
    names = [f"{m}{p}, {s}" for s in ("two", "all") for m in ("sum", "trimmed") for p in PROFILES]
    assert {arm for arm in found if not arm.endswith("reversed")} == set(names)
    assert {f"{name}, reversed" for name in names if "+" in name} < set(found)
    assert {group.search.trials for group in found.values()} == {12}
    assert {group.search.sampler for group in found.values()} == {"gp"}
    scalars = {arm: len(group.space.dims) for arm, group in found.items()}
    assert [scalars[f"sum{p}, all"] for p in PROFILES] == [1, 2, 3, 4]
    assert scalars["trimmed, all"] == 2 and scalars["sum + grouped, two, reversed"] == 4
    assert found["sum, two"].template.weights == (1, 1, 0)


PROFILES = ("", " + linear", " + power", " + grouped")


def test_all_profiles_reach_the_same_coefficients() -> None:
    arms = parse_spec(spec(lambdas=[-0.5, 1.5])).arms
    assert arms["sum"].scaling.alpha.range == (-0.5, 1.5)
    linear = arms["sum + linear"].scaling
    assert linear.alpha.range == (-0.5, 0.5) and linear.beta.range == (0, 1)
    assert {factor.range for factor in arms["sum + grouped"].scaling.params["factors"]} == {(-0.5, 1.5)}


def test_each_expert_is_edited_with_every_profile_and_its_controls() -> None:
    profiles = ["linear", {"grouped": 2}, {"grouped": 4}]
    plan = make_plan(parse_spec(spec(methods=[], edit="each_expert", profiles=profiles)))
    scalars = {g.arm: len(g.space.dims) for g in plan.searched if g.search.trials == 12 and not g.control}
    assert scalars == {"edit": 1, "edit + linear": 2, "edit + grouped 2": 3, "edit + grouped 4": 5}
    assert {g.name for g in plan.searched if g.arm == "edit"} == set(BASE["experts"])
    assert {g.control for g in plan.searched} == {"", "reversed", "uniform", "equal_norm"}
    both = make_plan(parse_spec(spec(edit=["kana"], sets={"two": ["mnist", "fashion"]})))
    found = {g.arm: g.kind for g in both.searched}
    assert found["edit + power"] == "edit" and found["sum + power, two"] == "merge" and "edit, two" not in found


def test_arms_that_are_written_out_lie_over_those_of_the_arena() -> None:
    own = {"sum + linear": {"search": {"trials": 30}}, "mine": {"merge": "average"}}
    arms = parse_spec(spec({"arms": own, "controls": []})).arms
    assert arms["sum + linear"].search.trials == 30 and arms["sum + linear"].scaling.function == "linear"
    assert arms["mine"].merge.method == "average"


def test_the_spec_of_the_run_folder_is_read_back_as_the_same() -> None:
    first = parse_spec(spec(profiles={"LiNeS": {"function": "linear", "alpha": "auto", "beta": {"range": [0, 1]}}}))
    assert parse_spec(json.loads(json.dumps(first.model_dump(mode="json")))) == first
    assert first.controls.kinds == ("reversed",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["summ"]}, "arena.methods.summ: unknown name 'summ'; did you mean 'sum'"),
        ({"profiles": ["liner"]}, "arena.profiles.liner: unknown name 'liner'; did you mean 'linear'"),
        ({"profiles": {"constant": {"function": "linear"}}}, "profiles.constant: must have the function constant"),
        (
            {"methods": {"c": {"method": "consensus", "params": {"tall_lambda": "auto"}}}},
            "methods.c.params.tall_lambda",
        ),
        ({"profiles": []}, "arena.profiles: must have at least 1 item"),
        ({"budget": {"evaluations": 1}}, "arena.budget.evaluations: must be at least 2, got 1"),
        ({"lambdas": [1, 1]}, "lambdas: the lowest must be below the highest, got [1.0, 1.0]"),
        ({"sets": {"two": ["mnist", "mnits"]}}, "arena.sets.two: unknown expert 'mnits'"),
        ({"profiles": {"l": {"function": "linear", "alpha": {"grid": [0, 1]}}}}, "profiles.l: a grid scores as many"),
        ({"methods": {"m": {"of": "sum"}}}, "methods.m: needs a method that gives one model"),
        ({"rounds": 3}, "arena.rounds: unknown key"),
        ({"methods": []}, "spec: arena: needs methods (merges), edit (such as each_expert), or both"),
        ({"methods": [], "edit": ["kanna"]}, "arena.edit: unknown expert 'kanna'; did you mean 'kana'"),
        ({"methods": [], "edit": "all"}, "arena.edit: unknown expert 'all'; known: each_expert, fashion, kana, mnist"),
        ({"edit": ["each_expert", "kana"]}, "spec: arena.edit: each_expert must be the only entry"),
        ({"methods": ["sum"], "edit": ["kana", "kana"]}, "edit: each expert may be named once"),
        ({"methods": {"edit": "sum"}, "edit": "kana"}, "methods.edit: this label is taken by the edits"),
        ({"methods": [], "edit": "kana", "sets": {"a": None}}, "sets: are of merged experts"),
        ({"profiles": [{"linear": 3}]}, "profiles.linear: only piecewise and grouped have a number of values, got 3"),
        ({"profiles": {"grouped": 1}}, "spec: arena.profiles.grouped: must be from 2 to 50 values over depth, got 1"),
        ({"profiles": ["sqrt", {"grouped": 3}, {"grouped": 3}]}, "each label may be there once, got ['grouped 3']"),
        ({"budget": {"evaluations": 3, "trials": 3}}, "arena.budget.trials: unknown key; it has no place here"),
    ],
)
def test_a_mistake_is_named_with_its_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        make_plan(parse_spec(spec(**changes)))
    assert message in str(error.value)


def test_edits_that_are_ranked_are_scored_on_the_same_tasks() -> None:
    every = {f"edit{p}": {"score": "targets"} for p in PROFILES}
    assert plan_of(spec({"arms": every}, edit="each_expert"))
    one = spec({"arms": {"edit + linear": {"score": "targets"}}}, edit="each_expert")
    with pytest.raises(ValueError, match=r"^spec: arms\.edit \+ linear\.score: targets scores other tasks than the ar"):
        plan_of(one)
    assert plan_of({**one, "tasks": ["mnist"], "targets": {"fashion": "mnist", "kana": "mnist"}})
    assert make_plan(parse_spec(one))  # the run folders of earlier versions are read


@pytest.mark.parametrize("lambdas", [["a", "b"], [2, 0], [0, 1e101], [1], 3, None, [0, float("nan")]])
def test_wrong_lambdas_beside_a_count_are_the_only_error(lambdas: Any) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec(spec(lambdas=lambdas, profiles={"grouped": 5}))
    found = str(error.value).splitlines()
    assert found and all("lambdas" in line and "profiles" not in line for line in found), found
    factors = (
        parse_spec(spec(lambdas=["0", 1], profiles={"grouped": 5})).arms["sum + grouped 5"].scaling.params["factors"]
    )
    assert {factor.range for factor in factors} == {(0, 1)}


def test_a_spec_needs_an_arm_or_an_arena() -> None:
    with pytest.raises(SpecError, match="arms: the spec needs at least one arm, or an arena"):
        parse_spec(BASE)
    with pytest.raises(SpecError, match="(?s)^spec: name: is required.*spec: arms: the spec needs at least one arm"):
        parse_spec({key: value for key, value in BASE.items() if key != "name"})
    with pytest.raises(SpecError, match="^spec: arena.budget: is required$"):
        parse_spec(BASE | {"arena": {"methods": ["sum"], "profiles": ["linear"]}})
