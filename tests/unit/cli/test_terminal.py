"""Proves that tables are whole in logs and folded on narrow terminals, and what -q, -h and --version print."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from pipeline import console
from pipeline.cli.main import app
from pipeline.versions import installed_version

LONG = "a name of an arm that is longer than the terminal is wide"
SHOW = f"""
from pipeline.console import console, folded_table
table = folded_table("arm", "objective")
table.add_row({LONG!r}, "2 * target + control, and more of it")
console.print(table)
console.rule("next")
"""


def shown(**environment: str) -> list[str]:
    known = {"PATH": "/usr/bin", "PYTHONPATH": ".", "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run([sys.executable, "-c", SHOW], env=known, capture_output=True, text=True).stdout.splitlines()


def test_a_log_has_tables_of_their_natural_width_and_short_rules() -> None:
    lines = shown()
    assert any(LONG in line and "and more of it" in line for line in lines) and len(lines[-1]) == 100


def test_a_narrow_terminal_folds_and_never_cuts() -> None:
    lines = shown(COLUMNS="40")
    assert max(map(len, lines)) <= 40 and "…" not in "".join(lines)
    rows = [[part.strip() for part in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert " ".join(row[0] for row in rows).split() == LONG.split()


@pytest.fixture
def loud() -> Iterator[None]:
    yield
    console._quiet = False


def test_quiet_leaves_notes_and_progress_out(loud: None, capsys: pytest.CaptureFixture[str]) -> None:
    console.be_quiet()
    console.print_note("a note")
    with console.progress_bar() as report:
        report("reading", 1, 2)
    console.print_result("a result")
    found = capsys.readouterr()
    assert (found.out.strip(), found.err) == ("a result", "")


def test_version_and_short_help() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output.strip()) == (0, f"lines-sweep {installed_version('lines-sweep')}")
    assert CliRunner().invoke(app, ["run", "-h"]).output == CliRunner().invoke(app, ["run", "--help"]).output != ""
    assert "Usage" in CliRunner().invoke(app, []).output
