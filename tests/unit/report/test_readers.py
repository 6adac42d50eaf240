"""Proves that the one-line readers of docs/reference/results.md and of the report run unchanged in a run folder."""

import re
from pathlib import Path

import duckdb
import pandas
import pyarrow.parquet
import pytest

from pipeline.report.tables.provenance import READERS

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "results.md"
NAMES = {"pyarrow": pyarrow, "pandas": pandas, "duckdb": duckdb}


def lines_of_document() -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.S)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("import ")]


@pytest.mark.parametrize("line", [line for _, line in READERS] + lines_of_document())
def test_reader_runs(line: str, finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_run)
    table = eval(line, dict(NAMES))
    assert len(table) > 0


def test_the_document_has_the_lines_of_the_report() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [line for _, line in READERS if line not in text] == []
