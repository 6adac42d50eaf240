"""Proves what the shell is offered while a user types: methods, runs, and the arms and experts of the run named."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.completion import VARIABLE, complete
from pipeline.cli.main import app
from pipeline.merging.methods import METHODS

OLD_RUN = Path(__file__).parents[2] / "data" / "old_run"
Offered = Callable[[str], list[str]]
#: What takes long to import.
HEAVY = ("numpy", "optuna", "pyarrow", "torch")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with runs/old, whose journal is real, and runs/tables/one, whose arms have spaces."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD_RUN, tmp_path / "runs" / "old")
    spec = {"arms": {"task arithmetic": {}, "task arithmetic + LiNeS": {}, "ties": {}}, "experts": {"cars": "c"}}
    write_journal(tmp_path / "runs" / "tables" / "one", {"record": "run", "version": 1, "spec": spec})
    return tmp_path


def write_journal(folder: Path, header: object) -> None:
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text(json.dumps(header) + "\n", encoding="utf-8")


@pytest.fixture
def offered(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Offered:
    def offered(line: str) -> list[str]:
        """What a shell is offered for the last word of a line, which is empty after a space."""
        monkeypatch.setenv(VARIABLE, "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        with pytest.raises(SystemExit):
            complete(app)
        found = capsys.readouterr()
        assert found.err == ""
        return list(filter(None, found.out.split("\n")))

    return offered


def test_methods_of_files_are_offered(offered: Offered) -> None:
    assert offered("lines merge --method dar") == ["dare", "dare_ties"]
    assert set(METHODS) - set(offered("lines merge --method ")) == {"zero", "regmean_pp", "adamerging", "atlas"}
    assert offered("lines merge --scaling p") == ["power", "piecewise"]


def test_runs_are_offered_two_folders_deep(offered: Offered) -> None:
    for command in ("export", "report", "regress", "history --metric x", "dashboard", "mirror", "baseline set"):
        assert offered(f"lines {command} ") == ["runs/old"], command
    assert offered("lines report runs/old runs/t") == ["runs/tables/one"]
    assert offered("lines plan spec.yaml --like runs/") == ["runs/old", "runs/tables/one"]
    assert offered("lines regress runs/old --baseline runs/o") == ["runs/old"]


def test_arms_and_experts_are_those_of_the_run_on_the_line(offered: Offered) -> None:
    assert offered("lines export runs/old --arm ") == ["LiNeS", "ta"]
    assert offered("lines export runs/old --expert c") == ["cats", "cars"]
    assert offered("lines export runs/old -o out --arm L") == ["LiNeS"]
    assert offered("lines history runs/old runs/tables/one --arm t") == [
        "ta", r"task\ arithmetic", r"task\ arithmetic\ +\ LiNeS", "ties",
    ]  # fmt: skip


def test_bash_is_given_quoted_names_unless_the_user_quotes(offered: Offered) -> None:
    names = ["task arithmetic", "task arithmetic + LiNeS"]
    assert offered("lines export runs/tables/one --arm 'ta") == names
    assert offered("lines export runs/tables/one --arm ta") == [name.replace(" ", r"\ ") for name in names]


def test_nothing_is_said_where_there_is_nothing_to_offer(runs: Path, offered: Offered) -> None:
    write_journal(runs / "runs" / "other", {"record": "run", "spec": 3})
    write_journal(runs / "runs" / "damaged", "x")
    (runs / "runs" / "empty").mkdir()
    for place in ("runs/other", "runs/damaged", "runs/empty", "runs/none", "s3://bucket/run"):
        assert offered(f"lines export {place} --arm ") == [], place
    assert offered("lines export --arm ") == []


def test_nothing_heavy_is_imported(runs: Path) -> None:
    code = "import sys; from pipeline.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    words = {VARIABLE: "complete_bash", "COMP_WORDS": "lines export runs/old --arm ", "COMP_CWORD": "4"}
    root = str(Path(__file__).parents[3])
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root, **words}, capture_output=True, text=True
    )
    assert found.stdout.split() == ["LiNeS", "ta"] and not set(HEAVY) & set(found.stderr.split())
