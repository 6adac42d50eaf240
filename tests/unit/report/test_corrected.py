"""Proves that a report predicts the drop of each choice from validation alone, or says why it cannot."""

from dataclasses import replace
from pathlib import Path

import pytest
from toy_run import GRID, RunBuilder

from pipeline.recipe import Recipe
from pipeline.report.data.choices import CorrectedChoice, corrected_choices
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import Run
from pipeline.report.page import build
from pipeline.report.tables.corrected import corrected_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an edit of two experts and a merge, each over a grid, a further seed, and a merge of one candidate."""
    built = RunBuilder()
    for group in ("digits", "fashion"):
        edits = [({"alpha": a}, Recipe.make("single", "linear", a, 1 - a, weights(group))) for a in GRID]
        built.add_group(("edit", "edit", "", ""), group, edits)
    merges = [({"alpha": a}, Recipe.make("sum", "constant", a)) for a in GRID]
    built.add_group(("merge", "merge", "", ""), "", merges)
    built.add_group(("merge, seeds", "seeds", "merge", "seeds"), "", merges[4:5])
    built.add_group(("alone", "merge", "", ""), "", merges[3:4])
    return built.write(tmp_path_factory.mktemp("corrected") / "run")


def weights(group: str) -> tuple[int, ...]:
    return tuple(int(group == name) for name in ("digits", "fashion", "letters", "textures"))


@pytest.fixture(scope="module")
def measure(folder: Path) -> Measure:
    return Measure.read(folder)


def found(run: Run, measure: Measure) -> dict[str, CorrectedChoice]:
    return {choice.arm.name: choice for choice in corrected_choices(run, measure.arms)}


def test_every_searched_arm_has_a_row(measure: Measure, folder: Path) -> None:
    choices = found(measure.run, measure)
    assert list(choices) == ["edit", "merge"], "nothing was chosen in the third"
    for name, choice in choices.items():
        assert choice.predicted is not None and choice.measured is not None
        chosen = [c for c in measure.run.candidates if c.arm == name and c.chosen]
        assert choice.predicted.value == pytest.approx(sum(sum(c.objectives or ()) for c in chosen) / len(chosen))
        assert choice.predicted.corrected.low < choice.predicted.corrected.value < choice.predicted.value
    page = build(folder)[1].read_text(encoding="utf-8")
    assert "## What the choices are worth" in page and "predicted −" in page and ", measured " in page
    assert "## Spread over seeds" in page


def test_the_measured_drop_is_that_of_the_objective(measure: Measure) -> None:
    """Of the merge: twice the mean over tasks of accuracy / the expert's on validation."""
    run = measure.run
    (chosen,) = (c for c in run.candidates if c.arm == "merge" and c.chosen)
    scores = run.scored(chosen)
    targets = [task for (task, split), score in scores.items() if split == "val" and score.role == "target"]
    drops = [
        (scores[task, "test"].value / scores[task, "val"].value - 1) * (scores[task, "val"].normalised or 0)
        for task in targets
    ]
    assert found(run, measure)["merge"].measured == pytest.approx(2 * sum(drops) / len(drops))


def test_before_test_is_read_the_drop_is_only_predicted(measure: Measure) -> None:
    scores = {who: {k: s for k, s in by.items() if k[1] == "val"} for who, by in measure.run.scores.items()}
    choice = found(replace(measure.run, scores=scores), measure)["merge"]
    assert choice.measured is None and choice.predicted == found(measure.run, measure)["merge"].predicted


def test_stopped_candidates_make_it_a_least_drop(measure: Measure) -> None:
    arms = [
        replace(
            arm,
            candidates=tuple(
                replace(c, stopped=True, objectives=None) if c.number in (0, 1) and not c.chosen else c
                for c in arm.candidates
            ),
        )
        for arm in measure.arms
        if arm.name == "merge"
    ]
    (row,) = corrected_table(measure.run, arms).rows
    assert row[1].plain == "9 (and 2 stopped)" and row[4].text.startswith("predicted at least −")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"samples": {}}, "no outcomes of single samples on digits are kept, only their sums"),
        ({"objectives": {"merge": ["2 * target + control + 1"]}}, "are not those of the kept samples"),
        ({"objectives": {"merge": ["reward"]}}, "is not one of accuracies"),
    ],
)
def test_what_cannot_be_told_has_a_reason(measure: Measure, change: dict[str, object], reason: str) -> None:
    run = measure.run
    run = replace(run, samples={}) if "samples" in change else replace(run, provenance={**run.provenance, **change})
    table = corrected_table(run, [arm for arm in measure.arms if arm.name == "merge"])
    assert reason in table.rows[0][4].plain
