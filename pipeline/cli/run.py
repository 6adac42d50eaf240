"""The command `lines run`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import Cache, PoolName, RayAddress, Workers
from pipeline.cli.report import show_index, show_report
from pipeline.cluster.auth import use_token
from pipeline.console import console, user_errors
from pipeline.quick_imports import quick_imports
from pipeline.signals import STOPPED

if TYPE_CHECKING:  # pydantic, optuna and Arrow: not before they are needed
    from pipeline.plan.plan import Plan

_KEPT = "what was scored so far is kept; rerun the same command to resume"


def run(
    specs: Annotated[list[Path], typer.Argument(help="Specs, YAML files, executed in turn.", metavar="SPEC...")],
    out: Annotated[
        str | None,
        typer.Option(
            help="The run's folder, a path or a URL; with several specs, the parent folder of their runs.",
            show_default="runs/NAME",
        ),
    ] = None,
    address: RayAddress = None,
    pool: PoolName = None,
    workers: Workers = None,
    cache: Cache = True,
) -> None:
    """Execute specs: writes tables, report.html and report.md. Rerun the command to resume a run that was stopped.

    All specs are read first, and an invalid one stops the command. If the checkpoints, data or workers of one spec
    fail, the others are still executed.
    """
    with user_errors(_KEPT):
        with quick_imports():
            from lines_sweep.running import run_plan
            from pipeline.spec.user_code import announce_code

        plans = _plans(specs, pool, workers)
        places = _places(plans, out)
        use_token(address)
        for plan in plans:
            announce_code(plan.spec)
        with quick_imports():
            from pipeline.execute import ray_for  # torch and Ray: not before the specs are valid

        status = dict.fromkeys(places, 0)
        with ray_for(plans, address) as connection:
            for plan, place in zip(plans, places, strict=True):
                if len(plans) > 1:
                    console.rule(plan.spec.name)
                with _keep_status(len(plans) > 1, place, status):
                    show = partial(show_report, place=place)
                    status[place] = run_plan(plan, place, show, connection, cache)
        finished = [place for place in places if status[place] < 2]
        if len(plans) > 1 and finished:
            show_index(finished, out or "runs")
        raise typer.Exit(max(status.values()))


@contextmanager
def _keep_status(several: bool, place: str, status: dict[str, int]) -> Iterator[None]:
    """With several specs, keep the status of an error for the end; a single run's error and Ctrl-C end the command."""
    try:
        with user_errors(_KEPT):
            yield
    except typer.Exit as end:
        if not several or end.exit_code == STOPPED:
            raise
        status[place] = end.exit_code


def _plans(paths: list[Path], pool: str | None, workers: int | None) -> "list[Plan]":
    """Return the plan of each spec.

    Raises:
        ValueError: if some are not valid specs; the errors of all are given.
    """
    from lines_sweep.running import plan_of

    plans, errors = [], []
    for path in paths:
        try:
            plans.append(plan_of(path, pool, workers))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("\n".join(errors))
    return plans


def _places(plans: "list[Plan]", out: str | None) -> list[str]:
    """Return each run's folder.

    Raises:
        ValueError: if two specs have the same name, and so the same folder.
    """
    if len(plans) == 1 and out is not None:
        return [out]
    names = [plan.spec.name for plan in plans]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"name: specs that run together must have different names, got {', '.join(twice)} twice")
    return [f"{(out or 'runs').rstrip('/')}/{name}" for name in names]
