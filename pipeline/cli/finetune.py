"""The command `lines finetune`: models from a spec, several at once, to be continued where they were stopped."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress as Bars
from rich.table import Table

from pipeline.cluster.auth import use_token
from pipeline.console import console, print_result, user_errors
from pipeline.train.display import TrainingDisplay, alone, say_conditions

if TYPE_CHECKING:  # torch and Ray take seconds to import, which `lines --help` need not wait for
    from pipeline.train.finetune.preparation import FinetuneJob
    from pipeline.train.finetune.spec import FinetuneSpec

_KEPT = "finished models and the last checkpoint of the others are kept; the same command goes on from there"


def finetune(
    spec: Annotated[Path, typer.Argument(help="The spec of the fine-tuning, a YAML file.", metavar="SPEC")],
    out: Annotated[Path | None, typer.Option(help="The folder of the models; runs/NAME where left out.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: auto, or HOST:PORT. Without it Ray starts here.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="ray or local, instead of the spec's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Models at a time, instead of the spec's.")] = None,
) -> None:
    """Fine-tune the base on each task in each way that SPEC says; the same command goes on where it was stopped.

    Each model is a folder that a sweep's spec can name as an expert.
    """
    with user_errors(_KEPT):
        from pipeline.spec.user_code import announce_code
        from pipeline.train.finetune.spec import load_finetune_spec

        read = load_finetune_spec(spec)
        announce_code(read)
        read = read.model_copy(update={"resources": read.resources.changed(pool, workers)})
        folder = (out or Path("runs") / read.name).resolve()
        with alone(folder, "finetune"):
            failures = _execute(read, folder, address)
        console.print(_table(read, folder))
        if failures:
            raise ValueError("\n".join(failures.values()))
        _check_seen(read, folder)
        print_result(f"models: {folder}")


def _execute(spec: "FinetuneSpec", folder: Path, address: str | None) -> Mapping[str, str]:
    """Prepare, leave out what is finished, train the rest; returns name -> cause of those that failed."""
    use_token(address)
    import torch

    from pipeline.cluster.session import local_ray
    from pipeline.cluster.worker_shapes import actor_shape
    from pipeline.train.executor import work_here, work_on_ray
    from pipeline.train.finetune.trainer import finetune as train

    local = spec.resources.pool == "local"
    if local and address is not None:
        raise ValueError(f"--address {address}: the local pool joins no cluster: leave one of the two out")
    with ExitStack() as stack:
        if local:
            jobs = _prepared(spec, folder, "cuda" if torch.cuda.is_available() else "cpu")
            display = stack.enter_context(TrainingDisplay(console, jobs).shown())
            return work_here(train, jobs, display)
        stack.enter_context(local_ray(address=address))
        shape = actor_shape(spec.resources)
        jobs = _prepared(spec, folder, "cuda" if shape.num_gpus else "cpu")
        display = stack.enter_context(TrainingDisplay(console, jobs).shown())
        return work_on_ray(train, jobs, shape, display)


def _prepared(spec: "FinetuneSpec", folder: Path, device_type: str) -> "list[FinetuneJob]":
    """Every model that is not finished yet."""
    from pipeline.train.finetune.preparation import prepare
    from pipeline.train.model_folder import condition

    with Bars(console=console, transient=True) as bars:
        bar = bars.add_task("preparing", total=None)
        jobs = prepare(
            spec,
            folder,
            device_type,
            lambda what, done, total: bars.update(bar, description=what, completed=done, total=total),
        )
    conditions = {job.name: condition(job.folder, job.identity) for job in jobs}
    say_conditions(console, conditions)
    return [job for job in jobs if conditions[job.name] != "finished"]


def _check_seen(spec: "FinetuneSpec", folder: Path) -> None:
    """Every model is here.

    Raises:
        ValueError: some were written to the disk of another node.
    """
    from pipeline.train.finetune.spec import runs_of
    from pipeline.train.model_folder import RESULT

    if missing := [run.name for run in runs_of(spec) if not (folder / run.name / RESULT).is_file()]:
        raise ValueError(
            f"--out: {folder}: {len(missing)} models were trained but are not here ({', '.join(missing[:3])}): workers "
            "on other nodes wrote them to disks of their own; give a folder that all nodes share"
        )


def _table(spec: "FinetuneSpec", folder: Path) -> Table:
    """Every finished model with what it gained on validation."""
    from pipeline.train.finetune.spec import runs_of
    from pipeline.train.model_folder import RESULT

    table = Table("model", "method", "steps", "val, base", "val", "seconds")
    for run in runs_of(spec):
        path = folder / run.name / RESULT
        if path.is_file():
            found = json.loads(path.read_text())
            before, after = (f"{100 * found[key]:.1f}" for key in ("base_val_accuracy", "val_accuracy"))
            table.add_row(run.name, run.method, str(found["steps"]), before, after, f"{found['seconds']:.0f}")
    return table
