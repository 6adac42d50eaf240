"""Proves that `lines runs` tells finished, running and stopped runs apart, and names the best arm."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exhibit_run import ARMS, write_run
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.console import console
from pipeline.records import tables
from pipeline.records.journal import Journal
from pipeline.records.listing import list_runs
from pipeline.records.provenance_file import read_provenance, write_provenance


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one below another folder that was stopped, and one whose tables are damaged."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "a [finished] run", arms={name: ARMS[name] for name in ("LiNeS", "wise")}, exhibits={})
    journal = Journal(folder / "sweeps" / "stopped")
    journal.header({"spec": {}})
    journal.close()
    damaged = write_run(folder / "damaged", exhibits={})
    (damaged / "candidates.parquet").write_bytes(b"PAR1")
    for age, name in enumerate(("a [finished] run", "sweeps/stopped", "damaged")):
        os.utime(folder / name / "journal.jsonl", (1e9 - age, 1e9 - age))
    return folder


def test_runs_are_listed_newest_first_with_their_state_and_best_arm(folder: Path) -> None:
    found = list_runs(folder)
    assert [(run.place, run.state) for run in found] == [
        ("a [finished] run", "finished"), ("sweeps/stopped", "stopped"), ("damaged", "finished"),
    ]  # fmt: skip
    rows = tables.read(folder / "a [finished] run" / "candidates.parquet", tables.CANDIDATES).to_pylist()
    means = {
        arm: np.mean([row["objectives"][0] for row in rows if row["arm"] == arm and row["chosen"]])
        for arm in {row["arm"]: 0 for row in rows if row["objectives"]}
    }
    best = max(means, key=lambda arm: means[arm])
    assert (found[0].candidates, found[0].best, found[0].objective) == (len(rows), best, pytest.approx(means[best]))
    assert found[0].maximised == ("2 * target + control",)
    assert found[1].candidates is found[2].candidates is None


def test_a_run_that_a_process_writes_is_running(folder: Path) -> None:
    journal = Journal(folder / "sweeps" / "stopped")
    try:
        assert {run.place: run.state for run in list_runs(folder)}["sweeps/stopped"] == "running"
    finally:
        journal.close()


def test_a_provenance_that_lacks_an_arm_leaves_the_other_runs_listed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "a [finished] run", tmp_path / "run")
    provenance = read_provenance(tmp_path / "run" / "provenance.json")
    del provenance["objectives"]["LiNeS"]
    write_provenance(tmp_path / "run", provenance)
    (run,) = list_runs(tmp_path)
    assert (run.state, run.best, run.objective) == ("finished", "", None) and run.candidates


def test_the_command_prints_a_table_or_json(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 200)
    result = CliRunner().invoke(app, ["runs", str(folder)])
    assert result.exit_code == 0 and "a [finished] run" in result.output and " d " in result.output
    found = json.loads(CliRunner().invoke(app, ["runs", str(folder), "--json"]).output)
    assert [run["place"] for run in found] == [run.place for run in list_runs(folder)]
    assert "no run is here" in CliRunner().invoke(app, ["runs", str(tmp_path)]).output
    result = CliRunner().invoke(app, ["runs", str(tmp_path / "none")])
    assert result.exit_code == 2 and "there is no such folder" in result.output


@pytest.mark.parametrize(
    ("other", "maximised"),
    [
        (ARMS["ta"] | {"select": {"maximise": "control"}}, ("2 * target + control", "control")),
        (ARMS["wise"], ("2 * target + control",)),
        (None, ("target", "control")),
    ],
    ids=["two objectives", "an edit beside a merge", "one arm of two objectives"],
)
def test_values_that_cannot_be_compared_have_no_best(tmp_path: Path, other: Any, maximised: tuple[str, ...]) -> None:
    ta = {"merge": "sum", "scaling": {"alpha": 0.5}}
    arms = {"ta": ta, "other": other} if other else {"ta": ta | {"select": {"maximise": [*maximised]}}}
    write_run(tmp_path / "run", arms=arms, exhibits={}, controls=[])
    (found,) = list_runs(tmp_path)
    assert (found.best, found.objective, found.maximised) == ("", None, maximised)
    shown = CliRunner().invoke(app, ["runs", str(tmp_path)]).output
    assert ("several" in shown) == (len(maximised) > 1)
