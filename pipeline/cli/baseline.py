"""The commands `lines baseline set` and `lines baseline show`: a run's choices, kept in one small file."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import FinishedRun
from pipeline.console import console, print_result, styled, user_errors

baseline = typer.Typer(help="Keep the results of a run for `lines regress` and `lines history`.", no_args_is_help=True)


@baseline.command("set")
def set_baseline(
    run: FinishedRun,
    file: Annotated[
        Path | None, typer.Argument(help="A .parquet file.", show_default="baselines/NAME.parquet", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write the choices of every arm of RUN, with their outcomes on test, to one file."""
    with user_errors():
        from pipeline.regress.baseline import SUFFIX, read_place, write_baseline

        found = read_place(run)
        path = file or Path("baselines") / f"{found.about['name']}{SUFFIX}"
        if path.suffix != SUFFIX:
            raise ValueError(f"{path}: must end in {SUFFIX}")
        if path.exists() and not force:
            raise ValueError(f"{path}: exists: --force replaces it, or give another FILE")
        write_baseline(found, path)
        print_result(f"wrote {path}: {len(found.rows)} models on tasks, {path.stat().st_size:,} bytes")


@baseline.command("show")
def show_baseline(
    file: Annotated[str, typer.Argument(help="A baseline, or a finished run.", metavar="FILE")],
) -> None:
    """Show a baseline: its origin, and the mean of every arm on every task."""
    with user_errors():
        from pipeline.cli.tables import rendered
        from pipeline.regress.baseline import read_place
        from pipeline.regress.history import means_table

        found = read_place(file)
        about = found.about
        console.print(styled("bold", about["name"], f", run {about.get('started', 'at an unrecorded time')}"))
        for what in ("checkpoints", "versions"):
            pairs = ", ".join(f"{name} {value}" for name, value in about[what].items())
            print_result(f"{what}: {pairs}")
        console.print(rendered(means_table(found)))
