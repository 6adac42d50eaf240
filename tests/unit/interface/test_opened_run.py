"""Proves that a run opened in Python shows its tables, fronts, figures and verdict, and says what it has not."""

from pathlib import Path

import plotly.graph_objects as go
import pytest
from exhibit_run import write_run

import lines_sweep as lines
from pipeline.report.data.estimates import Measure
from pipeline.report.page import build, summary


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lines.Run:
    return lines.open_run(write_run(tmp_path_factory.mktemp("run")))


def test_tables_are_those_of_the_folder(run: lines.Run) -> None:
    chosen = [row for row in run.candidates.to_pylist() if row["arm"] == "ta lines" and row["chosen"]]
    assert len(chosen) == 1
    scores = [row for row in run.scores.to_pylist() if row["recipe_id"] == chosen[0]["recipe_id"]]
    score = next(row for row in scores if (row["task"], row["split"]) == ("cats", "test"))
    outcomes = {(r["recipe_id"], r["split"]): r["outcomes"] for r in run.samples("cats").to_pylist()}
    found = outcomes[chosen[0]["recipe_id"], "test"]
    assert score["n"] == len(found) and score["value"] == pytest.approx(sum(found) / len(found))


def test_a_front_holds_no_dominated_candidate(run: lines.Run) -> None:
    mine = [row for row in run.candidates.to_pylist() if row["arm"] == "LiNeS"]
    front = run.front("LiNeS").to_pylist()
    assert front and len(front) < len(mine)
    for row in front:
        rivals = [r["objectives"] for r in mine if r["group"] == row["group"] and r["objectives"] != row["objectives"]]
        assert not any(all(a >= b for a, b in zip(r, row["objectives"], strict=True)) for r in rivals)


def test_figures_are_those_of_the_report(run: lines.Run) -> None:
    html, _ = build(run.folder)
    assert html.read_text(encoding="utf-8").count('type="application/json"') == len(run.figures) > 30
    figure = run.figure("Figure 14: accuracy")
    assert isinstance(figure, go.Figure) and {"ta", "ta lines"} <= {trace.name for trace in figure.data}


def test_the_verdict_and_the_view_in_a_notebook_say_what_the_report_says(run: lines.Run) -> None:
    found = summary(run.folder)
    assert run.verdict.splitlines() == list(found.sentences) != []
    html = run._repr_html_()
    assert found.sentences[0].split(":")[0] in html and html.count("<table>") == len(found.tables)


def test_verdict_figures_and_view_read_the_tables_once(run: lines.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, whole, read = lines.open_run(run.folder), Measure.read, list[Path]()
    monkeypatch.setattr(Measure, "read", lambda folder: read.append(folder) or whole(folder))
    assert opened.verdict and opened.figures and opened._repr_html_() and opened.figure(opened.figures[0])
    assert read == [run.folder]


def test_errors_of_an_export_name_arguments(run: lines.Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^arm ties: not in the run; did you mean"):
        run.export("ties", tmp_path / "out")
    with pytest.raises(ValueError, match="^arm ta: is a merge: leave expert out"):
        run.export("ta", tmp_path / "out", expert="cats")
    with pytest.raises(ValueError, match="^file: with export_mergekit it must be a new .yml"):
        run.export_mergekit("ta", tmp_path / "out")


def test_what_is_not_there_is_refused_with_what_is(run: lines.Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task 'cat': not in the run; did you mean 'cats'"):
        run.samples("cat")
    with pytest.raises(ValueError, match="arm 'ta line': not in the run; did you mean 'ta lines'"):
        run.front("ta line")
    with pytest.raises(
        ValueError, match="figure 'Figure 14: accurate': not in the report; did you mean 'Figure 14: accuracy'"
    ):
        run.figure("Figure 14: accurate")
    with pytest.raises(ValueError, match="no run here"):
        lines.open_run(tmp_path)
    (tmp_path / "journal.jsonl").touch()
    with pytest.raises(ValueError, match="stopped before it wrote tables: `lines report"):
        lines.open_run(tmp_path)
