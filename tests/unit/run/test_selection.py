"""Proves what is chosen: the largest objective on validation, the first of equals, never a failure."""

from dataclasses import replace
from pathlib import Path

import pytest
from toy import IDENTITY, TASKS, ToyEvaluator, toy_spec

from pipeline.messages import Failure
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.records.ledger import Ledger
from pipeline.run.forecast import forecast, proposed
from pipeline.run.run import run
from pipeline.run.selection import Candidate, References, choose, judge, references
from pipeline.run.walk import judge_all
from search.proposer import Proposal

PLAN = make_plan(toy_spec(select={"maximise": ["2 * target + control", "worst"]}))
GROUP = next(g for g in PLAN.searched if g.arm == "LiNeS")
PROPOSALS = [Proposal(i, {"alpha": a}) for i, a in enumerate((0.0, 0.5, 1.0))]


def scored(broken: tuple[str, str] | None = None) -> Ledger:
    """References and the group's proposals, on validation."""
    ledger = Ledger(IDENTITY, 40, {})
    evaluator = ToyEvaluator()
    recipes = [g.recipe({}) for g in PLAN.references] + [GROUP.recipe(p.point) for p in PROPOSALS]
    for request in (r for recipe in recipes for r in ledger.requests(recipe, TASKS, "val")):
        failed = broken == (request.recipe_id, request.task)
        answer = Failure(request, "non_finite", "NaN") if failed else evaluator.evaluate(request)
        ledger.answers[request.key] = answer
    return ledger


def candidate(*values: float) -> Candidate:
    return Candidate(GROUP, PROPOSALS[0], GROUP.recipe({"alpha": 0}), "id", values or None)


def test_the_largest_sum_of_objectives_is_chosen_and_the_first_of_equals() -> None:
    found = [candidate(1.0, 0.0), candidate(), candidate(0.5, 1.0), candidate(1.5, 0.0)]
    assert choose(found) is found[2]
    assert choose(found[:2]) is found[0]
    assert choose([candidate(-3.0)]) is not None


def test_nothing_is_chosen_if_everything_failed() -> None:
    assert choose([candidate(), candidate()]) is None and choose([]) is None


def test_references_are_each_experts_accuracy_on_its_task_and_the_pre_trained_models_on_all() -> None:
    ledger = scored()
    refs = references(PLAN, ledger, "val")
    assert {task for task, _ in refs.experts.values()} == set(TASKS) and set(refs.control) >= set(TASKS)
    expert = ledger.stats(ledger.recipe_id(PLAN.references[2].recipe({})), "dogs", "val")
    merge = next(g for g in PLAN.searched if g.kind == "merge")
    assert expert is not None and refs.known(merge)["dogs"] == expert.mean
    assert refs.known(GROUP)["dogs"] == refs.control["dogs"], "GROUP edits the cats' expert"
    assert references(PLAN, ledger, "test") == References({}, {})


def test_of_several_experts_of_a_task_an_edit_is_measured_against_its_own_and_a_merge_against_the_best() -> None:
    refs = References({"cats": ("cats", 0.5), "dogs": ("cats", 0.8)}, {})
    merge = next(g for g in PLAN.searched if g.kind == "merge")
    assert refs.known(GROUP)["cats"] == 0.5 and refs.known(merge)["cats"] == 0.8


def test_a_candidate_has_one_value_an_objective_normalised_by_the_references() -> None:
    ledger = scored()
    refs = references(PLAN, ledger, "val")
    judged = judge(GROUP, PROPOSALS[2], ledger, refs)
    means = ledger.means(judged.recipe_id, TASKS, "val")
    assert means is not None and judged.values is not None
    target = means["cats"] / refs.experts["cats"][1]
    control = [means[t] / refs.control[t] for t in ("dogs", "cars")]
    assert judged.values == pytest.approx((2 * target + sum(control) / 2, min(target, *control)))


def test_a_failure_on_any_shard_fails_the_candidate_with_its_cause() -> None:
    recipe_id = GROUP.recipe(PROPOSALS[1].point).id(IDENTITY.fingerprint)
    ledger = scored(broken=(recipe_id, "dogs"))
    found = judge_all(PLAN, ledger, {GROUP.key: PROPOSALS})[GROUP.key]
    assert [c.values is None for c in found] == [False, True, False]
    assert found[1].failure == "non_finite on dogs (val, shard 0): NaN"


def test_a_candidate_without_a_reference_to_normalise_by_fails_with_that_cause() -> None:
    ledger = scored()
    refs = references(PLAN, ledger, "val")
    judged = judge(GROUP, PROPOSALS[0], ledger, replace(refs, experts={}))
    assert judged.values is None
    assert "no reference to normalise by" in judged.failure and judged.failure.endswith("on cats")


def test_an_objective_without_a_value_fails_its_candidate_and_not_the_run() -> None:
    ledger = scored()
    group = replace(GROUP, objectives=("target / (worst - worst)",))
    judged = judge(group, PROPOSALS[0], ledger, references(PLAN, ledger, "val"))
    assert judged.values is None and "must be finite" in judged.failure


def test_what_is_not_answered_yet_is_no_candidate() -> None:
    ledger = scored()
    last = ledger.requests(GROUP.recipe(PROPOSALS[2].point), ["cars"], "val")[-1]
    del ledger.answers[last.key]
    judged = judge_all(PLAN, ledger, {GROUP.key: PROPOSALS})
    assert [c.proposal.number for c in judged[GROUP.key]] == [0, 1]


def test_the_forecast_is_close_above_what_a_run_asks_for(run_folder: Path) -> None:
    evaluator, plan = ToyEvaluator(), make_plan(toy_spec())
    run(plan, IDENTITY, run_folder, lambda: LocalPool(evaluator), None)
    expected, asked = forecast(plan, Ledger(IDENTITY, 40, {})), evaluator.evaluated
    assert len(asked) <= expected.shards <= 1.2 * len(asked)
    samples = sum(r.stop - r.start for r in asked)
    assert samples <= expected.samples <= 1.2 * samples


def test_a_soup_of_71_models_is_counted_without_listing_its_subsets() -> None:
    experts = {f"m{i}": "toy/cats" for i in range(71)}
    arms = {"soup": {"merge": "average", "search": {"sampler": "greedy"}}}
    plan = make_plan(toy_spec(experts=experts, targets=dict.fromkeys(experts, "cats"), arms=arms, controls=[]))
    assert [proposed(group) for group in plan.searched] == [141]
    assert forecast(plan, Ledger(IDENTITY, 40, {})).shards > 141
