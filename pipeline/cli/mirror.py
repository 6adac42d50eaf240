"""The command `lines mirror`: copies a run's results to MLflow or Weights & Biases."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import RunPlace
from pipeline.console import print_result, user_errors

if TYPE_CHECKING:
    from pipeline.watch.mirrors.snapshot import Mirror, RunSnapshot


def mirror(
    run: RunPlace,
    mlflow: Annotated[
        str | None, typer.Option(help="A tracking server or database, such as sqlite:///mlflow.db.", metavar="URI")
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="A project of Weights & Biases, or ENTITY/PROJECT.", metavar="PROJECT")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Continue until the run has ended.")] = False,
    every: Annotated[float, typer.Option(min=1, help="With --follow: seconds between two updates.")] = 30,
) -> None:
    """Copy a run's results to MLflow or Weights & Biases, once or while it works; nothing is written twice.

    A mirror only reads the run: it can be rebuilt at any time, and its failure does not affect the run. Keys are read
    from the environment, as those programs do.
    """
    with user_errors(), ExitStack() as closing:
        mirrors = _mirrors(mlflow, wandb)
        for one in mirrors:
            closing.callback(one.close)
        reported: set[str] = set()
        for snapshot in _snapshots(run, follow, every):
            for one in mirrors:
                _show(one, snapshot, follow, reported)
            state = "finished" if snapshot.finished else "not finished"
            print_result(f"{snapshot.name}: {len(snapshot.rows)} candidates mirrored, {state}")


def _mirrors(mlflow: str | None, wandb: str | None) -> "list[Mirror]":
    """Return the mirrors that the options name; raise ValueError if they name none."""
    mirrors: list[Mirror] = []
    if mlflow is not None:
        from pipeline.watch.mirrors.mlflow import MlflowMirror

        mirrors.append(MlflowMirror(mlflow))
    if wandb is not None:
        from pipeline.watch.mirrors.wandb import WandbMirror

        mirrors.append(WandbMirror(wandb))
    if not mirrors:
        raise ValueError("lines mirror: needs a target: --mlflow URI, --wandb PROJECT, or both")
    return mirrors


def _snapshots(run: str, follow: bool, every: float) -> "Iterator[RunSnapshot]":
    """Yield the run so far; with `follow` whenever it has changed, until it has ended.

    Raises:
        ValueError: if there is no run and `follow` is False.
    """
    from pipeline.storage.run_folder import run_folder
    from pipeline.watch.follow.interim_tables import interim_tables
    from pipeline.watch.follow.run_view import view_run
    from pipeline.watch.follow.tail import Tail
    from pipeline.watch.mirrors.snapshot import read_snapshot

    tail, view = Tail(), None
    while True:
        snapshot, before = None, tail.offset
        with run_folder(run) as folder:
            while tail.advance(folder):
                pass
            history = tail.state.history
            view = view_run(history, view)
            if view is not None and tail.offset != before:
                with interim_tables(folder, view, history) as tables:
                    snapshot = read_snapshot(tables)
        if snapshot is not None:
            yield snapshot
        if not follow and view is None:
            raise ValueError(f"{run}: no run here: there is no journal.jsonl with a first record")
        if not follow or history.finished:
            return
        time.sleep(every)


def _show(mirror: "Mirror", snapshot: "RunSnapshot", follow: bool, reported: set[str]) -> None:
    """Show a snapshot; while the run is followed, an error is reported once, and the next update tries again."""
    try:
        mirror.show(snapshot)
    except ValueError as error:
        if not follow or snapshot.finished:
            raise
        if str(error) not in reported:
            reported.add(str(error))
            print_result(f"{error}; every update tries again")
