"""The command `lines inspect`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import Json, SpecPath
from pipeline.console import console, print_result, progress_bar, user_errors

if TYPE_CHECKING:  # torch, plotly: not before they are needed
    from pipeline.inspection.page import Inspection
    from pipeline.report.tables.table import Table

#: Rows of a table that the terminal shows; the page has all.
_ROWS = 40


def inspect(
    spec: SpecPath,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder for inspect.html, inspect.json and the tables as Parquet."),
    ] = None,
    rank: Annotated[
        int, typer.Option(min=1, metavar="K", help="Leading singular directions of an update that are compared.")
    ] = 8,
    as_json: Json = False,
) -> None:
    """Show what a spec's experts do to the weights, before anything is searched.

    Norms of task vectors by block, cosines and sign conflicts between experts, overlap of their subspaces, and the
    distance to the base. Weights are read in pieces, so little memory is needed.
    """
    with user_errors():
        from lines_sweep.running import plan_of
        from pipeline.spec.user_code import announce_code

        plan = plan_of(spec)
        announce_code(plan.spec)
        from pipeline.inspection.page import Inspection, write_inspection
        from pipeline.inspection.weights import inspect_weights  # torch: not before the spec is known to be valid

        with progress_bar() as report:
            found = Inspection(plan.spec.name, inspect_weights(plan.spec, rank, report))
        page = write_inspection(found, out) if out else None
        if as_json:
            print_result(json.dumps(found.facts, indent=2))
            return
        _print(found)
        if page:
            print_result(f"page: {page}")


def _print(found: "Inspection") -> None:
    from pipeline.cli.tables import rendered
    from pipeline.inspection.weight_tables import weight_tables

    for table in weight_tables(found.weights):
        console.print(rendered(_cut(table)))


def _cut(table: "Table") -> "Table":
    from dataclasses import replace

    if len(table.rows) <= _ROWS:
        return table
    note = f"{table.note} The first {_ROWS} of {len(table.rows)} rows; --out writes all."
    return replace(table, note=note, rows=table.rows[:_ROWS])
