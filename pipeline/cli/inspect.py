"""The command `lines inspect`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.cli.common import Cache, Json, PoolName, RayAddress, SpecPath, Workers
from pipeline.cluster.auth import use_token
from pipeline.console import console, print_result, progress_bar, progress_console, user_errors

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
    gate: Annotated[
        bool, typer.Option(help="Score each edit without a third of the blocks, on validation; else weights only.")
    ] = True,
    address: RayAddress = None,
    pool: PoolName = None,
    workers: Workers = None,
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Show what a spec's experts do to the weights, and which edits have room for LiNeS, before anything is searched.

    Of the weights: norms of task vectors by block, cosines and sign conflicts between experts, overlap of their
    subspaces, distance to the base. Then the gate: what target and control tasks lose on validation when a third of
    the blocks loses its update. Scores are kept for `lines run`, whose report says whether the gate was right.
    """
    with user_errors("what was scored so far is kept; rerun the same command to resume"):
        from lines_sweep.running import plan_of
        from pipeline.spec.user_code import announce_code
        from pipeline.storage.run_folder import check_writable

        plan = plan_of(spec, pool, workers)
        if out:
            check_writable(out)
        use_token(address)
        announce_code(plan.spec)
        from pipeline.inspection.page import Inspection, write_inspection
        from pipeline.inspection.weights import inspect_weights  # torch: not before the spec is known to be valid

        with progress_bar() as report:
            found = Inspection(plan.spec.name, inspect_weights(plan.spec, rank, report))
        if gate:
            from pipeline.execute import measure_gate, ray_for

            with ray_for([plan], address) as connection:
                quiet = Console(quiet=True) if as_json else progress_console()
                found = replace(found, gate=measure_gate(plan, cache, quiet, connection))
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
    from pipeline.report.tables.gate import gate_note, gate_sentences, gate_tables

    edits = found.gate.edits if found.gate else ()
    for table in [*weight_tables(found.weights), *gate_tables(edits)]:
        console.print(rendered(_cut(table)))
    for sentence in gate_sentences(edits):
        console.print(f"- {sentence}")
    if edits:
        console.print(gate_note())


def _cut(table: "Table") -> "Table":
    if len(table.rows) <= _ROWS:
        return table
    note = f"{table.note} The first {_ROWS} of {len(table.rows)} rows; --out writes all."
    return replace(table, note=note, rows=table.rows[:_ROWS])
