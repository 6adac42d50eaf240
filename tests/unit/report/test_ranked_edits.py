"""Proves which edits an arena ranks, and that those that cannot be compared are named instead."""

from pathlib import Path

from toy_run import EXPERTS, ZERO, RunBuilder, single

from pipeline.report.data.arena import rankings
from pipeline.report.data.estimates import Measure
from pipeline.report.tables.arena import arena_tables

SHAPES = {"edit": "constant", "edit + linear": "linear"}
OWN = "a constant of the user"
ARENA = {"edit": "each_expert", "profiles": ["linear"], "budget": {"evaluations": 5}}


def measured(folder: Path) -> Measure:
    """Return a run of an arena of edits."""
    run = RunBuilder()
    run.add_group(("pre-trained", "pre-trained", "", ""), "", [({}, ZERO)])
    for expert in EXPERTS:
        run.add_group(("fine-tuned", "edit", "", ""), expert, [({}, single(expert))])
        for name, scaling in (SHAPES | {OWN: "constant"}).items():
            points = [({"alpha": a}, single(expert, scaling, a, 1 - a)) for a in (0.5, 1.0)]
            run.add_group((name, "edit", "", ""), expert, points)
    measure = Measure.read(run.write(folder))
    measure.run.provenance["spec"].update(arena=ARENA, select={"maximise": ["2 * target + control"]})
    return measure


def test_an_edit_without_the_score_of_one_control_is_named_and_the_others_are_ranked(tmp_path: Path) -> None:
    measure = measured(tmp_path)
    (whole,) = rankings(measure)
    assert {arm.name for arm in whole.arms} == {"fine-tuned", *SHAPES} and whole.missing == ()
    first, second, *_ = EXPERTS
    (arm,) = (arm for arm in measure.arms if arm.name == "edit + linear")
    del measure.run.scores[arm.name, first, arm.chosen(first).number][second, "test"]
    (ranking,) = rankings(measure)
    assert ranking.missing == ("edit + linear",) and len(ranking.arms) == 2
    assert "edit + linear" not in ranking.by_expert[first]
    assert ranking.by_expert[second] == whole.by_expert[second]


def test_only_edits_of_the_arena_that_were_chosen_by_its_objective_are_ranked(tmp_path: Path) -> None:
    measure = measured(tmp_path)
    assert any(arm.name == OWN for arm in measure.bench(measure.arms[1]).arms)
    measure.run.provenance["objectives"]["edit"] = ["worst"]
    (ranking,) = rankings(measure)
    assert {arm.name for arm in ranking.arms} == {"fine-tuned", "edit + linear"} and ranking.otherwise == ("edit",)
    note = arena_tables(measure, [ranking])[0].note
    assert "Chosen by other objectives, and not ranked: edit." in note
    measure.run.provenance["objectives"]["edit + linear"] = ["worst"]
    assert "fine-tuned is the only one that is ranked." in arena_tables(measure, rankings(measure))[0].note


def test_an_own_edit_that_is_scored_on_more_tasks_changes_no_ranking(tmp_path: Path) -> None:
    measure = measured(tmp_path)
    for (arm, group, _), scores in measure.run.scores.items():
        if arm in SHAPES:
            for place in [place for place, score in scores.items() if score.role == "control" and group == EXPERTS[0]]:
                del scores[place]
    (ranking,) = rankings(measure)
    assert {arm.name for arm in ranking.arms} == {"fine-tuned", *SHAPES} and not ranking.missing
