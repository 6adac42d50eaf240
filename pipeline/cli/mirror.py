"""The command `lines mirror`: a run's results where a group looks at its runs: MLflow, Weights & Biases."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.console import print_result, user_errors

if TYPE_CHECKING:
    from pipeline.watch.mirrors.snapshot import Mirror, Picture


def mirror(
    run: Annotated[str, typer.Argument(help="A run's folder, a path or a URL.", metavar="RUN")],
    mlflow: Annotated[
        str | None, typer.Option(help="A tracking server or database, such as sqlite:///mlflow.db.", metavar="URI")
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="A project of Weights & Biases, or ENTITY/PROJECT.", metavar="PROJECT")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
    every: Annotated[float, typer.Option(min=1, help="With --follow: seconds between two looks.")] = 30,
) -> None:
    """Copy a run's results to MLflow or Weights & Biases, once or while it works; nothing is written twice.

    The journal stays the only truth: a mirror can be made anew at any time, and one that fails does not touch the run.
    Keys are read from the environment, as those programs do.
    """
    with user_errors(), ExitStack() as closing:
        mirrors = _mirrors(mlflow, wandb)
        for one in mirrors:
            closing.callback(one.close)
        told: set[str] = set()
        for picture in _pictures(run, follow, every):
            for one in mirrors:
                _show(one, picture, follow, told)
            state = "finished" if picture.finished else "not finished"
            print_result(f"{picture.name}: {len(picture.rows)} candidates mirrored, {state}")


def _mirrors(mlflow: str | None, wandb: str | None) -> "list[Mirror]":
    """Raises ValueError: none is asked for."""
    found: list[Mirror] = []
    if mlflow is not None:
        from pipeline.watch.mirrors.mlflow import MlflowMirror

        found.append(MlflowMirror(mlflow))
    if wandb is not None:
        from pipeline.watch.mirrors.wandb import WandbMirror

        found.append(WandbMirror(wandb))
    if not found:
        raise ValueError("lines mirror: say where to: --mlflow URI, --wandb PROJECT, or both")
    return found


def _pictures(run: str, follow: bool, every: float) -> "Iterator[Picture]":
    """The run by now; with `follow` again and again until it has ended.

    Raises:
        ValueError: there is no run, and nothing to wait for.
    """
    from pipeline.storage.run_folder import run_folder
    from pipeline.watch.follow.interim_tables import tables_now
    from pipeline.watch.follow.run_view import opened
    from pipeline.watch.follow.tail import Tail
    from pipeline.watch.mirrors.snapshot import read_picture

    tail, known = Tail(), None
    while True:
        picture, before = None, tail.offset
        with run_folder(run) as folder:
            while tail.advance(folder):
                pass
            history = tail.seen.history
            known = opened(history, known)
            if known is not None and tail.offset != before:
                with tables_now(folder, known.plan, known.ledger, history) as tables:
                    picture = read_picture(tables)
        if picture is not None:
            yield picture
        if not follow and known is None:
            raise ValueError(f"{run}: no run here: there is no journal.jsonl with a first record")
        if not follow or history.finished:
            return
        time.sleep(every)


def _show(mirror: "Mirror", picture: "Picture", follow: bool, told: set[str]) -> None:
    """Where the run is followed, what cannot be shown now is shown at the next look; `told` is what was said of it."""
    try:
        mirror.show(picture)
    except ValueError as error:
        if not follow or picture.finished:
            raise
        if str(error) not in told:
            told.add(str(error))
            print_result(f"{error}; tried again at every look")
