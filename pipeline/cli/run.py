"""The command `lines run`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline.cli.common import plan_of
from pipeline.cli.report import show_index, show_report
from pipeline.cluster.auth import use_token
from pipeline.console import STOPPED, console, print_note, user_errors
from pipeline.plan.plan import Plan
from pipeline.spec.user_code import announce_code
from pipeline.storage.run_folder import open_run

_KEPT = "what a run has scored so far is kept; the same command goes on from here"


def run(
    specs: Annotated[list[Path], typer.Argument(help="Specs, YAML files, worked in turn.", metavar="SPEC...")],
    out: Annotated[
        str | None,
        typer.Option(help="The run's folder, a path or a URL; for several specs the folder of theirs; else runs/NAME."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: auto, or HOST:PORT. Without it Ray starts here.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="ray or local, instead of the spec's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers, instead of the spec's.")] = None,
    cache: Annotated[bool, typer.Option(help="Use scores of earlier runs, and keep these for later ones.")] = True,
) -> None:
    """Work specs to their end: tables, report.html and report.md; the same command goes on where it was stopped.

    Several specs are all read first, and a mistake in one stops the command; one whose checkpoints, data or workers
    fail does not stop the others.
    """
    with user_errors(_KEPT):
        plans = _plans(specs, pool, workers)
        places = _places(plans, out)
        use_token(address)
        for plan in plans:
            announce_code(plan.spec)
        from pipeline.execute import (  # torch and Ray: not before the specs are known to be good
            RunTarget,
            execute,
            ray_for,
        )

        status = dict.fromkeys(places, 0)
        with ray_for(plans, address):
            for plan, place in zip(plans, places, strict=True):
                if len(plans) > 1:
                    console.rule(escape(plan.spec.name))
                with _others_go_on(len(plans) > 1, place, status), open_run(place, print_note) as opened:
                    where = RunTarget(opened.folder, cache, address is not None, opened.check, opened.upload)
                    execute(plan, where, console)
                    status[place] = show_report(opened.folder, place)
        worked = [place for place in places if status[place] < 2]
        if len(plans) > 1 and worked:
            show_index(worked, out or "runs")
        raise typer.Exit(max(status.values()))


@contextmanager
def _others_go_on(several: bool, place: str, status: dict[str, int]) -> Iterator[None]:
    """Tell an error, and keep its status for the end; that of a single run, and Ctrl-C, end the command at once."""
    try:
        with user_errors(_KEPT):
            yield
    except typer.Exit as end:
        if not several or end.exit_code == STOPPED:
            raise
        status[place] = end.exit_code


def _plans(paths: list[Path], pool: str | None, workers: int | None) -> list[Plan]:
    """The plan of each spec.

    Raises:
        ValueError: some are no valid specs; what is wrong with each of them is told.
    """
    plans, errors = [], []
    for path in paths:
        try:
            plans.append(plan_of(path, pool, workers))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("\n".join(errors))
    return plans


def _places(plans: list[Plan], out: str | None) -> list[str]:
    """Each run's folder.

    Raises:
        ValueError: two specs have the same name, and so the same folder.
    """
    if len(plans) == 1 and out is not None:
        return [out]
    names = [plan.spec.name for plan in plans]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"name: specs that are run together need names of their own, got {', '.join(twice)} twice")
    return [f"{(out or 'runs').rstrip('/')}/{name}" for name in names]
