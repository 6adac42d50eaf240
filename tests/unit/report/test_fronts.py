"""Proves that the report's fronts, hypervolumes and searched dimensions are those of the run's own tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from toy import IDENTITY, TASKS, ToyEvaluator, toy_spec
from toy_run import GRID, build_run

from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.records import tables
from pipeline.report.data.clouds import TRADE_OFF, averaged_clouds, group_clouds
from pipeline.report.data.estimates import Measure
from pipeline.report.figures.searched import searched
from pipeline.report.figures.sweeps import sweeps
from pipeline.report.page import build
from pipeline.report.tables.hypervolumes import front_tables
from pipeline.report.tables.provenance import spec_text
from pipeline.report.tables.table import Table, decimal
from pipeline.run.run import run

FREE = {"function": "linear", "alpha": {"range": [0.0, 1.0]}, "beta": {"range": [0.0, 1.0]}}
EVOLVED = {"sampler": "nsga2", "trials": 8, "in_flight": 4, "options": {"population_size": 4}}
GRIDDED = {"function": "linear", "alpha": {"grid": [0.0, 0.5, 1.0]}, "beta": "1 - alpha"}


def measured(folder: Path, **spec: Any) -> Measure:
    """A run of the real driver over the toy evaluator."""
    run(make_plan(toy_spec(**spec)), IDENTITY, folder, lambda: LocalPool(ToyEvaluator()), None)
    return Measure.read(folder)


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """One expert under two objectives, and merges under two others."""
    arms = {
        "linear": {"edit": "cats", "scaling": GRIDDED},
        "free": {"edit": "cats", "scaling": FREE, "search": EVOLVED},
        "merge": {"merge": "sum", "scaling": FREE, "search": EVOLVED, "select": {"maximise": ["mean", "worst"]}},
    }
    folder = tmp_path_factory.mktemp("evolved") / "run"
    return measured(folder, arms=arms, controls=[], select={"maximise": ["target", "control"]})


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """An arm that searches each expert at other points, and two equal arms over one grid."""
    tpe = {"sampler": "tpe", "trials": 5, "in_flight": 1, "options": {"startup_trials": 2}}
    one = {"function": "linear", "alpha": {"range": [0.0, 1.0]}, "beta": "1 - alpha"}
    arms = {
        "linear": {"edit": "each_expert", "scaling": GRIDDED},
        "again": {"edit": "each_expert", "scaling": GRIDDED},
        "tpe": {"edit": "each_expert", "scaling": one, "search": tpe},
    }
    return measured(tmp_path_factory.mktemp("adaptive") / "run", arms=arms, controls=["uniform", "reversed"])


def area(points: np.ndarray, corner: np.ndarray) -> float:
    """Slow oracle: the area of a union of rectangles, strip by strip."""
    total, left = 0.0, corner[0]
    for x in sorted(points[:, 0]):
        total += (x - left) * max(y - corner[1] for px, y in points if px >= x)
        left = x
    return total


def by_title(found: list[Table], start: str) -> Table:
    return next(table for table in found if table.title.startswith(start))


def test_clouds_have_the_objectives_and_the_front_of_the_tables(evolved: Measure) -> None:
    rows = tables.read(evolved.run.folder / "candidates.parquet", tables.CANDIDATES).to_pylist()
    for kind, objectives in (("edit", TRADE_OFF), ("merge", ("mean", "worst"))):
        arms = [a for a in evolved.arms if a.kind == kind]
        (found,) = group_clouds(evolved, objectives, arms)
        for cloud in (c for c in found.clouds if c.arm.role == "lines"):
            own = [row for row in rows if row["arm"] == cloud.arm.name]
            np.testing.assert_allclose(cloud.xy_PM, [row["objectives"] for row in own], rtol=1e-6)
            assert cloud.mask_P.tolist() == [row["on_front"] for row in own]
            assert [c.recipe_id for c in cloud.candidates] == [row["recipe_id"] for row in own]


def test_averages_are_the_means_of_the_scores_table(finished_run: Path) -> None:
    measure = Measure.read(finished_run)
    found = averaged_clouds(measure, measure.benches[0])
    assert found is not None
    rows = tables.read(finished_run / "scores.parquet", tables.SCORES).to_pylist()
    for cloud in (c for c in found.clouds if len(c.labels) > 1):
        for column, role in enumerate(TRADE_OFF):
            for number in range(len(GRID)):
                values = [
                    row["normalised"]
                    for row in rows
                    if (row["arm"], row["number"], row["role"], row["split"]) == (cloud.arm.name, number, role, "val")
                ]
                assert cloud.xy_PM[number, column] == pytest.approx(np.mean(values), rel=1e-6)


def test_hypervolumes_are_areas_above_the_worst_corner(finished_run: Path) -> None:
    measure = Measure.read(finished_run)
    found = averaged_clouds(measure, measure.benches[0])
    assert found is not None
    corner = np.min([c.xy_PM.min(axis=0) for c in found.clouds], axis=0)
    (table,) = front_tables(measure)
    assert f"target {100 * corner[0]:.1f} and control {100 * corner[1]:.1f}" in table.note
    clouds = {c.arm.name: c for c in found.clouds}
    areas = {name: 1e4 * area(c.xy_PM, corner) for name, c in clouds.items()}
    leader = areas[table.rows[0][0].text]
    for lead, tried, front, volume, difference in table.rows:
        cloud = clouds[lead.text]
        assert (tried.text, front.text) == (str(len(cloud.labels)), str(cloud.mask_P.sum()))
        assert volume.text == decimal(areas[lead.text], 1)
        assert difference.text in ("–", decimal(leader - areas[lead.text], 1, True))
    words = {row[0].text.rpartition(", ")[2]: row[-1].tone for row in table.rows[1:]}
    # The toy model rewards depth and punishes its reversal; a single point gets no verdict.
    assert words["reversed"] == "better" and words["fine-tuned"] == ""


def test_equal_fronts_tie_at_exactly_zero(adaptive: Measure) -> None:
    table = by_title(front_tables(adaptive), "Fronts on validation, mean over experts: again against")
    same = next(row for row in table.rows if row[0].text == "linear")
    assert same[-1].plain == "0.0 [0.0, 0.0] tie"


def test_an_adaptive_search_is_compared_expert_by_expert(adaptive: Measure) -> None:
    table = by_title(front_tables(adaptive), "Fronts on validation, expert by expert: tpe against")
    assert {row[1].text for row in table.rows} == set(TASKS)
    assert len([row for row in table.rows if row[0].text == "tpe"]) == len(TASKS)
    (figure,) = searched(adaptive)
    assert {arm.name for arm in figure.legend} == {"tpe", "tpe, reversed"}


def test_one_expert_under_two_objectives_has_one_table(evolved: Measure) -> None:
    found = [table.title for table in front_tables(evolved)]
    assert found == [
        "Fronts on validation: linear against …",
        "Fronts on validation: free against …",
        "The points on the fronts",
        "Fronts of mean against worst on validation",
        "The points on the fronts",
    ]


def test_every_searched_dimension_is_drawn_once(evolved: Measure) -> None:
    drawn = {figure.title.split(":")[0]: [p.title for p in figure.panels] for figure in searched(evolved)}
    assert drawn["Edited experts"] == [
        "target over alpha",
        "target over beta",
        "control over alpha",
        "control over beta",
    ]
    assert drawn["Merges"] == ["mean over alpha", "mean over beta", "worst over alpha", "worst over beta"]
    assert {arm.name for figure in sweeps(evolved) for arm in figure.legend} == {"linear"}
    assert all(len(p.figure.data[0].x) == 8 for figure in searched(evolved) for p in figure.panels)


def test_the_page_contains_them_all(evolved: Measure) -> None:
    html, markdown = (path.read_text(encoding="utf-8") for path in build(evolved.run.folder))
    for title in ("Fronts on validation: free against …", "The points on the fronts"):
        assert title in html and title in markdown
    assert 'id="fronts"' in html and "expert by expert" not in html


def test_a_run_without_fronts_has_no_section_of_them(tmp_path: Path) -> None:
    full, merges = build_run(), build_run()
    merges.candidates = [row for row in full.candidates if row["kind"] != "edit"]
    merges.scores = [row for row in full.scores if row["group"] == "" and row["role"] != "control"]
    html = build(merges.write(tmp_path))[0].read_text(encoding="utf-8")
    assert 'id="fronts"' not in html


def test_the_spec_is_shown_without_empty_entries(evolved: Measure) -> None:
    shown = spec_text(evolved.run)
    assert "null" not in shown and "{}" not in shown and "[]" not in shown
    again = yaml.safe_load(shown)
    assert again["arms"]["free"]["search"]["sampler"] == "nsga2" and again["arms"]["linear"]["edit"] == ["cats"]


@pytest.mark.parametrize(
    ("value", "sign", "shown"),
    [(0.04, True, "+0.0"), (-0.04, True, "−0.0"), (-0.04, False, "0.0"), (-1e-12, True, "0.0"), (-1.26, False, "−1.3")],
)
def test_a_number_keeps_its_side_of_zero(value: float, sign: bool, shown: str) -> None:
    assert decimal(value, 1, sign) == shown
