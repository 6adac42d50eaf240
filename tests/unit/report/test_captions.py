"""Proves that the notes of tables speak of columns that these tables have, whatever the run has scored."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy import IDENTITY, ToyEvaluator, toy_spec

from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.report.data.estimates import Measure
from pipeline.report.tables.chosen import _MEANINGS, chosen_table
from pipeline.report.tables.results import _DIFFERENCE, _EDIT_COLUMNS, result_tables
from pipeline.report.tables.table import Table
from pipeline.run.run import run

LINES = {"function": "linear", "alpha": "auto", "beta": {"grid": [0.0, 0.5]}}
ONE_MERGE = {"arms": {"LiNeS merge": {"merge": "sum", "scaling": LINES}}, "controls": []}
ONE_EDIT = {"arms": {"LiNeS": {"edit": "each_expert", "scaling": LINES, "score": "targets"}}, "controls": []}
MEANINGS = {**_MEANINGS, **_EDIT_COLUMNS}


@pytest.fixture(params=[{}, ONE_MERGE, ONE_EDIT], ids=["all", "one merge", "one edit"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Table]]:
    """The tables of a run."""
    changes: dict[str, Any] = request.param
    run(make_plan(toy_spec(**changes)), IDENTITY, tmp_path, lambda: LocalPool(ToyEvaluator("")), None)
    measure = Measure.read(tmp_path)
    yield [*result_tables(measure, "test"), *result_tables(measure, "val"), chosen_table(measure)]


def test_every_sentence_is_about_a_column_that_exists(tables: list[Table]) -> None:
    assert tables
    for table in tables:
        for column, meaning in MEANINGS.items():
            assert (meaning in table.note) <= (column in table.columns), (table.title, column)
        assert ("The difference" in table.note) == (_DIFFERENCE in table.columns)
        assert ("plain merge" in table.note) <= ("plain merge" in table.columns)
        if "normalised" in table.columns:
            assert "Normalised: divided by each task's fine-tuned expert." in table.note
        assert all(entry.plain for row in table.rows for entry in row[:1])


def test_columns_with_a_meaning_have_it_in_the_note(tables: list[Table]) -> None:
    for column in tables[-1].columns:
        assert _MEANINGS.get(column, "") in tables[-1].note


def test_pages_name_columns_and_do_not_count_them() -> None:
    root = Path(__file__).parents[3]
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    counted = re.compile(r"\b(first|second|third|last)( two)? columns?\b")
    assert [p.name for p in pages if counted.search(p.read_text(encoding="utf-8"))] == []
