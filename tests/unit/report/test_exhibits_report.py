"""Proves that every exhibit shows the numbers of the run's tables, each difference in pairs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exhibit_run import ARMS, EXHIBITS, Oracle, write_run
from toy import TASKS
from toy_run import EXPERTS, SIZES, RunBuilder, build_run

from pipeline.merging.scaling import coefficients
from pipeline.report.data.estimates import Measure
from pipeline.report.exhibits import exhibits
from pipeline.report.exhibits.labels import HEIGHT, POSITIONS, WIDTH, Spot, label_box, overlap, placed
from pipeline.report.exhibits.scope import caption
from pipeline.report.figures.figure import Figure
from pipeline.report.page import build, summary
from pipeline.report.tables.table import Table, decimal
from pipeline.run.run import rebuild


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("exhibits") / "run")


@pytest.fixture(scope="module")
def shown(folder: Path) -> dict[str, Any]:
    return {exhibit.title: exhibit for exhibit in drawn(folder)}


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Oracle:
    return Oracle(folder)


def drawn(folder: Path) -> list[Table | Figure]:
    return exhibits(Measure.read(folder))


def row(table: Table, name: str) -> tuple[Any, ...]:
    return next(entries[1:] for entries in table.rows if entries[0].text == name)


def trace(figure: Figure, panel: int, name: str) -> Any:
    return next(t for t in figure.panels[panel].figure.data if t.name == name and getattr(t, "fill", None) is None)


def percent(values: Any) -> str:
    return decimal(100 * float(np.mean(list(values))), 1)


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


def test_figures_show_test_if_every_candidate_was_scored_on_it(tmp_path: Path) -> None:
    arms = {name: ARMS[name] | {"test": "every"} for name in ("ta", "ta 2d")}
    asked = {"C": {"kind": "curve", "arms": "ta"}, "H": {"kind": "heatmap", "arms": "ta 2d"}}
    asked |= {"V": asked["C"] | {"split": "val"}}
    found = drawn(write_run(tmp_path / "run", arms=arms, controls=[], exhibits=asked))
    assert [exhibit.note.split()[0] for exhibit in found] == ["Test", "Test", "Validation"]


def test_the_page_and_the_terminal_begin_with_them(folder: Path) -> None:
    html, markdown = (path.read_text(encoding="utf-8") for path in build(folder))
    assert html.index('id="exhibits"') < html.index('id="verdict"')
    headings = [f"### {name}" for name in EXHIBITS]
    assert sorted(headings, key=markdown.index) == headings and markdown.index(headings[-1]) < markdown.index("## Verd")
    assert [table.title for table in summary(folder).tables[:2]] == ["Table 1", "Table 2"]


def test_a_run_without_exhibits_has_none(finished_run: Path) -> None:
    assert drawn(finished_run) == []


def test_a_finished_run_may_get_other_exhibits(folder: Path, tmp_path: Path) -> None:
    wanted = {"Other": EXHIBITS["Figure 14"]}
    again = write_run(write_run(tmp_path / "run"), exhibits=wanted)
    assert [exhibit.title for exhibit in drawn(again)] == ["Other"]
    rebuild(again)
    assert [exhibit.title for exhibit in drawn(again)] == ["Other"]


def test_missing_scores_are_shown_as_missing(folder: Path, tmp_path: Path) -> None:
    """An interrupted run: only the pre-trained model was scored."""
    built = RunBuilder()
    full = build_run()
    built.candidates, built.samples = full.candidates[:1], full.samples
    built.scores = [score for score in full.scores if score["arm"] == "pre-trained"]
    path = with_exhibits(
        built.write(tmp_path),
        {
            "T": {"kind": "table", "columns": {"A": "target"}, "rows": {"P": "pre-trained", "L": "LiNeS"}},
            "F": {"kind": "curve", "arms": "LiNeS"},
        },
    )
    table, figure = drawn(path)
    assert isinstance(table, Table) and isinstance(figure, Figure)
    assert row(table, "L")[0].text == "–" and row(table, "P")[0].text != "–" and not figure.panels
    assert "Nothing to draw yet" in build(path)[1].read_text(encoding="utf-8")


def with_exhibits(path: Path, wanted: dict[str, Any]) -> Path:
    provenance = json.loads((path / "provenance.json").read_text(encoding="utf-8"))
    spec = provenance["spec"] | {"exhibits": wanted}
    (path / "provenance.json").write_text(json.dumps(provenance | {"spec": spec}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> list[Table | Figure]:
    """The toy run, with the notes of a learned method in its merge."""
    built = build_run()
    noted = {e: [float(i + j) for j in range(len(SIZES.blocks) + 1)] for i, e in enumerate(EXPERTS)}
    for candidate in built.candidates:
        if candidate["arm"] == "task arithmetic":
            candidate["note"] = json.dumps({"seconds": 12.25, "peak_bytes": 2_500_000_000, "coefficients": noted})
    wanted = {
        "T": {
            "kind": "table",
            "columns": {"Accuracy": "accuracy", "Seconds": "seconds", "GB": "peak_gb", "Objective": "objective"},
            "rows": {"learned": "task arithmetic", "LiNeS": "task arithmetic + LiNeS"},
        },
        "F": {"kind": "coefficients", "arms": ["task arithmetic", "task arithmetic + LiNeS"]},
    }
    return drawn(with_exhibits(built.write(tmp_path_factory.mktemp("learned")), wanted))


def test_learned_methods_show_their_cost(learned: list[Table | Figure]) -> None:
    table = learned[0]
    assert isinstance(table, Table)
    assert [entry.text for entry in row(table, "learned")[1:3]] == ["12.2", "2.5"]
    assert [entry.text for entry in row(table, "LiNeS")[1:3]] == ["–", "–"]
    assert float(row(table, "learned")[3].text) > 1


def test_learned_coefficients_are_averaged_over_experts(learned: list[Table | Figure]) -> None:
    figure = learned[1]
    assert isinstance(figure, Figure)
    chosen = next(c for c in figure.legend[0].candidates if c.chosen)
    mean = np.mean([[i + j for j in range(1, len(SIZES.blocks) + 1)] for i in range(len(EXPERTS))], axis=0)
    np.testing.assert_allclose(trace(figure, 0, "task arithmetic").y, float(chosen.recipe.alpha) * mean, atol=1e-5)
    plain = next(c for c in figure.legend[1].candidates if c.chosen)
    expected = coefficients(plain.recipe, SIZES, float(plain.recipe.alpha)).blocks
    np.testing.assert_allclose(trace(figure, 0, "task arithmetic + LiNeS").y, expected, atol=1e-5)


def test_the_best_individual_is_chosen_on_validation(tmp_path: Path) -> None:
    """Table 4: three experts of one task, their mean, the best of them, and their soup."""
    rows = {"Mean": "fine-tuned", "Best": {"arm": "fine-tuned", "metric": "best"}, "Soup": "soup"}
    table = {"kind": "table", "columns": {"Acc.": "accuracy"}, "rows": rows, "against": {"Soup": "Mean"}}
    path = write_run(
        tmp_path / "run",
        arms={"soup": {"merge": "average", "scaling": {"alpha": 0.5}}},
        controls=[],
        ood={},
        targets=dict.fromkeys(TASKS, "cats"),
        exhibits={"Table 4": table},
    )
    (found,), oracle = drawn(path), Oracle(path)
    assert isinstance(found, Table)
    val, test = (oracle.values("fine-tuned", split) for split in ("val", "test"))
    best = max(TASKS, key=lambda expert: val[expert, "cats"])
    assert row(found, "Best")[0].text == percent([test[best, "cats"]])
    assert row(found, "Mean")[0].text == percent(test[e, "cats"] for e in TASKS)
    soup = oracle.values("soup", "test")["", "cats"]
    gain = 100 * (soup - np.mean([test[e, "cats"] for e in TASKS]))
    assert row(found, "Soup")[0].detail.startswith(f"({decimal(gain, 1, True)} [")


@pytest.mark.parametrize("step", [0.02, 0.05])
def test_names_of_dots_do_not_cover_each_other(step: float) -> None:
    spots = [Spot(f"name {i:02}", 0.3 + step * i, 0.5) for i in range(12)]
    positions = placed(spots, (0.0, 1.0), (0.0, 1.0))
    boxes = [label_box(s.name, WIDTH * s.x, HEIGHT * s.y, POSITIONS[p]) for s, p in zip(spots, positions, strict=True)]
    covered = sum(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    all_right = [label_box(s.name, WIDTH * s.x, HEIGHT * s.y, (1, 0)) for s in spots]
    naive = sum(overlap(a, b) for i, a in enumerate(all_right) for b in all_right[:i])
    assert covered <= (0 if step == 0.05 else 0.5 * naive)
