"""Proves that a run of an earlier version is read, and that its rebuilt report has the same numbers."""

import re
import shutil
from pathlib import Path

from pipeline.report.page import build
from pipeline.run.run import rebuild

#: The journal and the report of a run of the toy evaluator, written by version 0.1.0 of November 2026.
OLD = Path(__file__).parents[2] / "data" / "old_run"


def numbers(markdown: str) -> list[list[str]]:
    """The numbers in each table row of a report."""
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    return [found for row in rows if (found := re.findall(r"[−+]?\d+(?:\.\d+)?", row))]


def test_an_old_journal_gives_the_numbers_of_its_old_report(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(OLD / "journal.jsonl", folder)
    rebuild(folder)
    # What the choices are worth is predicted since a later version.
    report = re.sub("## What the choices are worth.*?(?=## )", "", build(folder)[1].read_text("utf-8"), flags=re.S)
    found = numbers(report)
    assert len(found) > 50 and found == numbers((OLD / "report.md").read_text(encoding="utf-8"))
