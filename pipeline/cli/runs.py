"""The command `lines runs`."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import Json
from pipeline.console import console, folded_table, print_note, print_result, user_errors

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that holds runs.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs of a folder, the newest first: state, candidates, best arm on validation, age."""
    from pipeline.records.listing import list_runs  # Arrow and optuna: not for `lines --help`

    with user_errors():
        found = list_runs(folder)
        if as_json:
            print_result(json.dumps([asdict(run) for run in found], indent=2))
            return
        if not found:
            print_note(f"{folder}: no run is here")
            return
        table = folded_table("run", "state", "candidates", "best", "value", "objective", "age")
        for run in found:
            value = "" if run.objective is None else f"{run.objective:.4g}"
            objective = "several" if len(run.maximised) > 1 else "".join(run.maximised)
            count = "" if run.candidates is None else f"{run.candidates:,}"
            table.add_row(run.place, run.state, count, run.best, value, objective, _age(time.time() - run.changed))
        console.print(table)


def _age(seconds: float) -> str:
    """Return a time in its largest whole unit."""
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= size), _UNITS[-1])
    return f"{max(0, int(seconds / size))} {unit}"
