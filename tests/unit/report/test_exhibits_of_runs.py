"""Proves what exhibits show of a run that is unfinished, has learned methods or one task, or has other exhibits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exhibit_run import ARMS, EXHIBITS, Oracle, write_run
from shown_exhibits import drawn, percent, row, trace
from toy import TASKS
from toy_run import EXPERTS, SIZES, RunBuilder, build_run

from pipeline.merging.scaling import coefficients
from pipeline.report.figures.figure import Figure
from pipeline.report.page import build
from pipeline.report.tables.table import Table, decimal
from pipeline.run.run import rebuild


def test_figures_show_test_if_every_candidate_was_scored_on_it(tmp_path: Path) -> None:
    arms = {name: ARMS[name] | {"test": "every"} for name in ("ta", "ta 2d")}
    asked = {"C": {"kind": "curve", "arms": "ta"}, "H": {"kind": "heatmap", "arms": "ta 2d"}}
    asked |= {"V": asked["C"] | {"split": "val"}}
    found = drawn(write_run(tmp_path / "run", arms=arms, controls=[], exhibits=asked))
    assert [exhibit.note.split()[0] for exhibit in found] == ["Test", "Test", "Validation"]


def test_a_run_without_exhibits_has_none(finished_run: Path) -> None:
    assert drawn(finished_run) == []


def test_a_finished_run_may_get_other_exhibits(tmp_path: Path) -> None:
    wanted = {"Other": EXHIBITS["Figure 14"]}
    again = write_run(write_run(tmp_path / "run"), exhibits=wanted)
    assert [exhibit.title for exhibit in drawn(again)] == ["Other"]
    rebuild(again)
    assert [exhibit.title for exhibit in drawn(again)] == ["Other"]


def test_missing_scores_are_shown_as_missing(tmp_path: Path) -> None:
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
