"""Proves that every exhibit shows the numbers of the run's tables, each difference in pairs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exhibit_run import EXHIBITS, Oracle, write_run
from shown_exhibits import drawn, percent, row, trace
from toy import TASKS

from pipeline.report.exhibits.labels import HEIGHT, POSITIONS, WIDTH, Spot, label_box, overlap, placed
from pipeline.report.exhibits.scope import caption
from pipeline.report.figures.figure import Figure
from pipeline.report.page import build, summary
from pipeline.report.tables.table import Table, decimal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("exhibits") / "run")


@pytest.fixture(scope="module")
def shown(folder: Path) -> dict[str, Any]:
    return {exhibit.title: exhibit for exhibit in drawn(folder)}


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Oracle:
    return Oracle(folder)


def test_they_are_in_the_order_of_the_spec(shown: dict[str, Any]) -> None:
    assert list(shown) == list(EXHIBITS)
    assert all(isinstance(shown[name], Table if name.startswith("Table") else Figure) for name in shown)


def test_table_1_has_the_means_of_the_scores(shown: dict[str, Any], oracle: Oracle) -> None:
    table = shown["Table 1"]
    assert table.columns == ("model", "Target", "Target, paper", "Control", "Control, paper", "Control, normalised")
    for name, arm in (("Fine-tuned", "fine-tuned"), ("+ LiNeS", "LiNeS")):
        values = oracle.values(arm, "test")
        cells = row(table, name)
        assert cells[0].text == percent(v for (g, t), v in values.items() if g == t)
        assert cells[2].text == percent(v for (g, t), v in values.items() if t in TASKS and g != t)
        normalised = oracle.values(arm, "test", field="normalised")
        assert cells[4].text == percent(v for (g, t), v in normalised.items() if t in TASKS and g != t)
    zero_shot = oracle.values("pre-trained", "test")
    assert row(table, "Pre-trained")[0].text == percent(zero_shot["", t] for t in TASKS)


def test_the_papers_numbers_are_next_to_the_measured_ones(shown: dict[str, Any]) -> None:
    table = shown["Table 1"]
    assert [row(table, "Fine-tuned")[i].text for i in (1, 3)] == ["90.5", "38.0"]
    assert [row(table, "+ LiNeS")[i].text for i in (1, 3)] == ["", ""]
    assert table.note.startswith("A note. Test split")


def test_a_difference_is_paired(shown: dict[str, Any], oracle: Oracle) -> None:
    ids = {arm: {g: c["recipe_id"] for g, c in oracle.chosen(arm).items()} for arm in ("LiNeS", "fine-tuned")}
    for i, own in ((0, True), (2, False)):
        keys = [(g, t) for t in TASKS for g in TASKS if (g == t) is own]  # the bootstrap takes task after task
        left, right = ({key: ids[arm][key[0]] for key in keys} for arm in ("LiNeS", "fine-tuned"))
        interval = oracle.difference(left, right)
        cell = row(shown["Table 1"], "+ LiNeS")[i]
        value, low, high = (decimal(100 * v, 1, True) for v in (interval.value, interval.low, interval.high))
        assert (cell.detail, cell.tone) == (f"({value} [{low}, {high}])", interval.verdict)


def test_each_column_is_a_mean_over_its_own_tasks(shown: dict[str, Any], oracle: Oracle) -> None:
    table = shown["Table 2"]
    for column, tasks in enumerate((TASKS, ("cats", "dogs"))):
        merge = ("ta", "pair")[column]
        expected = {
            "Zero-shot": [oracle.values("pre-trained", "test")["", t] for t in tasks],
            "Fine-tuned": [oracle.values("fine-tuned", "test")[t, t] for t in tasks],
            "Task Arithmetic": [oracle.values(merge, "test")["", t] for t in tasks],
            "+ LiNeS": [oracle.values(f"{merge} lines", "test")["", t] for t in tasks],
        }
        assert [row(table, name)[column].text for name in expected] == [percent(v) for v in expected.values()]
    assert row(table, "Zero-shot")[2].plain == ""
    assert row(table, "Task Arithmetic")[2].plain == "0.333 (equation 2)"
    assert float(row(table, "+ LiNeS")[2].text) == oracle.chosen("ta lines")[""]["beta"]


def test_a_curve_has_each_point_of_the_arm(shown: dict[str, Any], oracle: Oracle) -> None:
    figure = shown["Figure 1"]
    assert "Validation split" in figure.note  # only the choice of LiNeS was scored on test
    line = trace(figure, 0, "shallow")
    points = [json.loads(r["point"])["alpha"] for r in oracle.rows("candidates") if r["arm"] == "LiNeS"]
    assert list(line.x) == points[: len(points) // 3]
    for number, y in enumerate(line.y):
        values = oracle.values("LiNeS", "val", number)
        assert y == pytest.approx(100 * np.mean([values[t, t] for t in TASKS]), abs=0.006)
    level = trace(figure, 0, "as it is")
    assert set(level.y) == {level.y[0]} and list(level.x) == [0.0, 1.0]


def test_the_note_of_a_curve_names_the_arms_with_a_shade(shown: dict[str, Any]) -> None:
    figure = shown["Figure 14"]
    shaded = [t.name for t in figure.panels[0].figure.data if t.fill == "toself"]
    assert shaded == ["ta lines"] and "drawn for LiNeS arms only" in figure.note
    both = shown["Figure 1"]
    assert len([t for t in both.panels[0].figure.data if t.fill == "toself"]) == 1 and "only" in both.note


@pytest.mark.parametrize(
    ("own", "note"), [("", "Test."), ("mine", "mine. Test."), ("Mine. ", "Mine. Test."), ("(so?)", "(so?). Test.")]
)
def test_the_note_of_a_spec_is_completed_to_a_sentence(own: str, note: str) -> None:
    assert caption(own, "Test.", "") == note


def test_a_scatter_has_a_dot_an_expert(shown: dict[str, Any], oracle: Oracle) -> None:
    values = oracle.values("LiNeS", "test", field="normalised")
    dots = next(t for t in shown["Figure 2"].panels[0].figure.data if t.name == "LiNeS" and len(t.x) > 1)
    expected = [100 * np.mean([values[g, t] for t in TASKS if t != g]) for g in TASKS]
    np.testing.assert_allclose(dots.x, expected, atol=0.006)
    np.testing.assert_allclose(dots.y, [100 * values[t, t] for t in TASKS], atol=0.006)
    plain = next(t for t in shown["Figure 2"].panels[0].figure.data if t.name == "pre-trained" and len(t.x) > 1)
    np.testing.assert_allclose(plain.x, [100.0] * 3)
    named = shown["Figure 6"].panels
    assert [p.title for p in named] == ["fine-tuned", "LiNeS"] and list(named[1].figure.data[0].text) == list(TASKS)


def test_a_path_joins_the_candidates(shown: dict[str, Any], oracle: Oracle) -> None:
    figure = shown["Figure 3"]
    assert [p.title for p in figure.panels] == ["cats_ood", "cats_ood2", "mean of the shifted sets"]
    for number in range(5):
        values = oracle.values("wise", "test", number)
        for panel, tasks in enumerate((["cats_ood"], ["cats_ood2"], ["cats_ood", "cats_ood2"])):
            line = trace(figure, panel, "WiSE-FT")
            assert line.x[number] == pytest.approx(100 * np.mean([values[t, t] for t in TASKS]), abs=0.006)
            shifted = np.mean([values[g, t] for g in TASKS for t in tasks])
            assert line.y[number] == pytest.approx(100 * shifted, abs=0.006)
    assert trace(figure, 0, "zero-shot").mode == "markers"
    start = trace(figure, 0, "WiSE-FT").marker
    assert start.symbol[0] == "circle-open" != start.symbol[1] and start.size[0] > start.size[1]
    assert "starting at the ring" in figure.note


def test_a_path_by_expert_has_a_panel_for_each(shown: dict[str, Any], oracle: Oracle) -> None:
    figure = shown["Figure 9"]
    assert [p.title for p in figure.panels] == list(TASKS)
    values = oracle.values("wise lines", "test", 3)
    assert trace(figure, 1, "wise lines").y[3] == pytest.approx(
        100 * np.mean([values["dogs", t] for t in ("cats_ood", "cats_ood2")]), abs=0.006
    )


def test_bars_are_task_by_task(shown: dict[str, Any], oracle: Oracle) -> None:
    figure = shown["Figure 10"]
    tuned, merged = oracle.values("fine-tuned", "test"), oracle.values("ta", "test")
    np.testing.assert_allclose(trace(figure, 0, "FT").y, [100 * tuned[t, t] for t in TASKS], atol=0.006)
    np.testing.assert_allclose(trace(figure, 0, "TA").y, [100 * merged["", t] for t in TASKS], atol=0.006)


def test_a_heatmap_boxes_the_best_on_validation(shown: dict[str, Any], oracle: Oracle) -> None:
    (panel,) = shown["Figure 15"].panels
    heat, (box,) = panel.figure.data[0], panel.figure.layout.shapes
    chosen = json.loads(oracle.chosen("ta 2d")[""]["point"])
    column, line = int((box.x0 + box.x1) / 2), int((box.y0 + box.y1) / 2)
    assert (float(heat.x[column]), float(heat.y[line])) == (chosen["beta"], chosen["alpha"])
    values = oracle.values("ta 2d", "val")
    assert heat.z[line][column] == pytest.approx(100 * np.mean([values["", t] for t in TASKS]), abs=0.006)
    assert heat.z[line][column] == max(max(z) for z in heat.z)


def test_the_page_and_the_terminal_begin_with_them(folder: Path) -> None:
    html, markdown = (path.read_text(encoding="utf-8") for path in build(folder))
    assert html.index('id="exhibits"') < html.index('id="verdict"')
    headings = [f"### {name}" for name in EXHIBITS]
    assert sorted(headings, key=markdown.index) == headings and markdown.index(headings[-1]) < markdown.index("## Verd")
    assert [table.title for table in summary(folder).tables[:2]] == ["Table 1", "Table 2"]


@pytest.mark.parametrize("step", [0.02, 0.05])
def test_names_of_dots_do_not_cover_each_other(step: float) -> None:
    spots = [Spot(f"name {i:02}", 0.3 + step * i, 0.5) for i in range(12)]
    positions = placed(spots, (0.0, 1.0), (0.0, 1.0))
    boxes = [label_box(s.name, WIDTH * s.x, HEIGHT * s.y, POSITIONS[p]) for s, p in zip(spots, positions, strict=True)]
    covered = sum(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    all_right = [label_box(s.name, WIDTH * s.x, HEIGHT * s.y, (1, 0)) for s in spots]
    naive = sum(overlap(a, b) for i, a in enumerate(all_right) for b in all_right[:i])
    assert covered <= (0 if step == 0.05 else 0.5 * naive)
