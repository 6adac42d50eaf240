"""Proves that means are over an arm's own tasks: merges of other experts are in other tables, masks in none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exhibit_run import ARMS, Oracle, write_run
from toy import TASKS
from toy_run import EXPERTS, build_run

from pipeline.recipe import Recipe
from pipeline.report.data.comparable import GroupTask, members
from pipeline.report.data.estimates import Measure
from pipeline.report.figures.bars import bars
from pipeline.report.figures.depths import depths
from pipeline.report.figures.searched import searched
from pipeline.report.figures.sweeps import sweeps
from pipeline.report.tables.chosen import chosen_table
from pipeline.report.tables.results import main_tables, result_tables
from pipeline.report.tables.table import Table, decimal
from pipeline.report.tables.verdict import verdicts
from search.intervals import TaskOutcomes, mean_interval, paired_difference


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Merges of three experts and of two; edits of three and of one."""
    arms = {name: ARMS[name] for name in ("LiNeS", "ta", "ta lines", "pair", "pair lines")}
    arms["cats only"] = ARMS["LiNeS"] | {"edit": ["cats"]}
    return Measure.read(write_run(tmp_path_factory.mktemp("benches") / "run", arms=arms, exhibits={}))


def by_title(tables: list[Table], *parts: str) -> Table:
    return next(table for table in tables if all(part in table.title for part in parts))


def test_every_arm_is_in_the_bench_of_its_tasks(measure: Measure) -> None:
    found = {(b.kind, b.name): {a.name for a in b.arms if not a.control_of} for b in measure.benches}
    assert found == {
        ("edit", "3 experts"): {"pre-trained", "fine-tuned", "LiNeS"},
        ("edit", "1 expert"): {"pre-trained", "fine-tuned", "cats only"},
        ("merge", "3 tasks"): {"pre-trained", "ta", "ta lines"},
        ("merge", "2 tasks"): {"pre-trained", "pair", "pair lines"},
    }
    assert all(any(a.name == f"{leader}, reversed" for a in b.arms) for b in measure.benches for leader in _lines(b))


def _lines(bench: Any) -> list[str]:
    return [arm.name for arm in bench.arms if arm.role == "lines"]


def test_means_are_over_the_arms_own_tasks(measure: Measure) -> None:
    oracle = Oracle(measure.run.folder)
    tables = main_tables(measure, "test")
    for what, arm, tasks in (("(3 tasks)", "ta", TASKS), ("(2 tasks)", "pair", ("cats", "dogs"))):
        table = by_title(tables, what)
        rows = {row[0].text: row[1].text for row in table.rows}
        assert rows[arm] == decimal(100 * np.mean([oracle.values(arm, "test")["", t] for t in tasks]), 1)
        tuned = np.mean([oracle.values("fine-tuned", "test")[t, t] for t in tasks])
        assert rows["fine-tuned (one model a task)"] == decimal(100 * tuned, 1)
        zero_shot = np.mean([oracle.values("pre-trained", "test")["", t] for t in tasks])
        assert rows["pre-trained"] == decimal(100 * zero_shot, 1)
    controls = by_title(result_tables(measure, "test"), "as a control (2 tasks)")
    assert controls.columns == ("model", "cars")


def test_verdicts_compare_with_arms_of_the_same_tasks(measure: Measure) -> None:
    rivals = {v.arm.name: {row[0].text for row in v.table.rows} for v in verdicts(measure)}
    assert "pair" in rivals["pair lines"] and "ta" not in rivals["pair lines"]
    assert rivals["cats only"] >= {"fine-tuned", "cats only, reversed"}
    assert "LiNeS, reversed" not in rivals["cats only"]


def test_members_are_the_experts_with_weight(measure: Measure) -> None:
    arms = {arm.name: arm for arm in measure.arms}
    assert members(measure.run, arms["pair"]) == ["cats", "dogs"]
    assert members(measure.run, arms["ta"]) == list(TASKS)
    assert members(measure.run, arms["cats only"]) == ["cats"]


def test_an_average_is_the_bootstrap_over_its_places(measure: Measure) -> None:
    """The control mean of the edits, place by place as `search.intervals` defines it."""
    arms = {arm.name: arm for arm in measure.arms}
    places = [GroupTask(g, t) for t in TASKS for g in TASKS if g != t]

    def outcomes(arm: str, place: GroupTask) -> Any:
        candidate = arms[arm].chosen(place.group)
        assert candidate is not None
        return measure.run.outcomes(candidate, place.task, "test")

    mean = measure.mean(arms["LiNeS"].chosen, places, "test")
    direct = mean_interval([TaskOutcomes(p.task, outcomes("LiNeS", p)) for p in places])
    difference = measure.difference(arms["LiNeS"].chosen, arms["fine-tuned"].chosen, places, "test")
    paired = paired_difference([TaskOutcomes(p.task, outcomes("LiNeS", p), outcomes("fine-tuned", p)) for p in places])
    for found, expected in ((mean, direct), (difference, paired)):
        assert found is not None and found.n == expected.n
        np.testing.assert_allclose(
            (found.value, found.low, found.high), (expected.value, expected.low, expected.high), atol=1e-12
        )


def test_averages_over_different_tasks_have_no_difference(measure: Measure) -> None:
    arms = {arm.name: arm for arm in measure.arms}
    three = measure.average(arms["ta"].chosen, [GroupTask("", t) for t in TASKS], "test")
    two = measure.average(arms["ta"].chosen, [GroupTask("", t) for t in TASKS[:2]], "test")
    assert three is not None and two is not None and three.minus(two) is None


def test_a_mask_is_shown_only_as_a_choice(tmp_path: Path) -> None:
    run = build_run()
    for i, expert in enumerate(EXPERTS):
        recipe = Recipe.make("tall_mask", params={"tall_lambda": 0.2 + 0.1 * i})
        run.add_group(("TALL masks", "mask", "", ""), expert, [({"tall_lambda": 0.2}, recipe)])
    folder = run.write(tmp_path)
    found = Measure.read(folder)
    assert [row[1].text for row in chosen_table(found).rows if row[0].text == "TALL masks"] == list(EXPERTS)
    assert not any("TALL masks" in row[0].text for table in result_tables(found, "test") for row in table.rows)
    figures = [*sweeps(found), *searched(found), *depths(found), *bars(found)]
    assert "TALL masks" not in {arm.name for figure in figures for arm in figure.legend}
