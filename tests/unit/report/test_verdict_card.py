"""Proves that a verdict is drawn to scale and names the smallest difference it finds, and that edges are warned of."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exhibit_run import write_run

from pipeline.recipe import Recipe
from pipeline.report.data.estimates import Measure
from pipeline.report.page import build
from pipeline.report.tables.edges import edge_warnings
from pipeline.report.tables.forest import smallest_found
from pipeline.report.tables.verdict import ArmVerdict, verdicts
from search.intervals import TaskOutcomes, paired_difference


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def verdict(run: Path) -> ArmVerdict:
    return next(v for v in verdicts(Measure.read(run)) if v.arm.name == "ta lines")


def test_the_plot_has_the_tables_differences_to_scale(verdict: ArmVerdict) -> None:
    plot = verdict.forest
    assert plot is not None
    left, right = (float(text.replace("−", "-")) for text in (plot.left, plot.right))
    shown = {row[0].text: row[-1] for row in verdict.table.rows}
    last = verdict.table.columns[-1]
    for line in plot.lines:
        role, name = line.label.split(": ", 1)
        if role == last:
            values = [line.low, line.value, line.high]
            found = [left + (right - left) * value / 100 for value in values]
            cell = shown[name]
            wanted = [float(x.replace("−", "-")) for x in re.findall(r"[+−]?\d+\.\d", f"{cell.detail} {cell.text}")]
            assert found == pytest.approx([wanted[0], wanted[2], wanted[1]], abs=0.11) and line.word == cell.tone
    assert left + (right - left) * plot.zero / 100 == pytest.approx(0, abs=0.06)


def test_a_true_difference_of_that_size_is_found_four_times_in_five() -> None:
    dice = np.random.default_rng(0)
    n, gap = 400, 0.08

    def study(gap: float) -> tuple[bool, float]:
        a, b = dice.random(n) < 0.5 + gap / 2, dice.random(n) < 0.5 - gap / 2
        interval = paired_difference([TaskOutcomes("t", a, b)], resamples=400)
        return interval.verdict == "better", smallest_found([interval])

    size = float(np.mean([study(gap)[1] for _ in range(20)]))
    assert size == pytest.approx(2.8 * np.sqrt(0.5 / n), rel=0.1)
    assert 0.7 < np.mean([study(size)[0] for _ in range(150)]) < 0.9


def test_the_card_names_objective_samples_and_day(verdict: ArmVerdict, run: Path) -> None:
    assert re.match(r"Chosen on validation by .*target.* [\d,]+ test samples, \d{4}-\d\d-\d\d\. ", verdict.facts)
    html, markdown = (path.read_text(encoding="utf-8") for path in build(run))
    assert 'class="forest"' in html and "With a probability of 80%" in markdown


def test_a_choice_on_the_edge_of_its_grid_is_warned_of(run: Path) -> None:
    measure = Measure.read(run)
    chosen = {a.name: a.chosen("") for a in measure.arms if a.name in ("ta", "ta lines")}
    assert chosen["ta lines"] is not None and chosen["ta lines"].point["beta"] == 1
    assert (
        "ta lines: beta = 1 is the largest value that was tried; a better one may lie beyond: widen its range."
        in edge_warnings(measure)
    )
    assert "Warning:** ta lines: beta = 1" in build(run)[1].read_text(encoding="utf-8")


def test_0_and_the_fine_tuned_model_are_no_edges(run: Path) -> None:
    measure, at_ends = Measure.read(run), set()
    for arm in measure.arms:
        points = [c.point for group in arm.groups if (c := arm.chosen(group)) and c.point]
        ends = (0, 1) if arm.kind == "edit" else (0,)
        if points and all(value in ends for point in points for value in point.values()):
            at_ends.add(arm.name)
    assert at_ends and not [text for text in edge_warnings(measure) if re.split(r": | \(", text)[0] in at_ends]


@pytest.mark.parametrize(
    ("chosen", "lowest", "warned"),
    [(100, None, False), (60, None, False), (20, None, True), (20, 10, False), (20, 20, True)],
)
def test_the_end_of_a_parameter_is_no_edge(run: Path, chosen: float, lowest: float | None, warned: bool) -> None:
    """`keep` of ties is a percentage: nothing lies beyond 100; and a range was tried down to its lowest value."""
    measure = Measure.read(run)
    arm = next(a for a in measure.arms if a.kind == "merge")
    recipe = Recipe.make("ties", params={"keep": chosen})
    rows = [replace(arm.candidates[0], recipe=recipe, point={"keep": k}, chosen=k == chosen) for k in (20, 60, 100)]
    written = {"merge": {"params": {"keep": {"range": [lowest, 100]}}}} if lowest else {}
    provenance = {**measure.run.provenance, "spec": {"arms": {arm.name: written}}}
    arms = [replace(arm, candidates=tuple(rows))]
    texts = edge_warnings(replace(measure, arms=arms, run=replace(measure.run, provenance=provenance)))
    assert bool(texts) == warned and all("keep = 20 is the smallest value" in text for text in texts)
