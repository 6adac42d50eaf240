"""Run a training command: lock the folder, start workers, train the jobs that are left, stage by stage."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from pipeline.cluster.session import local_ray
from pipeline.cluster.worker_shapes import actor_shape
from pipeline.console import console, print_result, progress_bar, progress_console
from pipeline.errors import LockedError
from pipeline.loading.model import Report
from pipeline.spec.resources import Resources
from pipeline.spec.user_code import announce_code
from pipeline.train.display import TrainingDisplay
from pipeline.train.executor import WatchTraining, train_here, train_on_ray
from pipeline.train.finetune.spec import FinetuneSpec
from pipeline.train.job import Stage, TrainingJob
from pipeline.train.model_folder import Condition
from pipeline.train.ppo.spec import PpoSpec
from tasks.files.locks import locked

S = TypeVar("S", FinetuneSpec, PpoSpec)
#: (spec, output folder, device type, report of progress) -> stages; each is made once the one before it is trained.
MakeStages = Callable[[S, Path, str, Report], Iterable[Stage[Any]]]
#: Trains jobs, shows them, and returns name -> cause of the ones that failed.
_Execute = Callable[[Any, Sequence[TrainingJob], WatchTraining], Mapping[str, str]]

#: Names that one line of the output shows.
_MAX_NAMES = 5


@dataclass(frozen=True)
class LaunchOptions:
    """Where to train, as given on the command line.

    Attributes:
        out: folder of the models; None for runs/NAME.
        address: of a Ray cluster; None to start Ray on this machine.
        pool: "ray" or "local" in place of the spec's.
        workers: models to train at the same time, in place of the spec's.
    """

    out: Path | None = None
    address: str | None = None
    pool: str | None = None
    workers: int | None = None


def launch(
    command: str, spec: S, options: LaunchOptions, make_stages: MakeStages[S], summarise: Callable[[S, Path], str]
) -> None:
    """Train everything in `spec` that is not finished in the output folder.

    Args:
        command: "finetune" or "ppo", which names the lock.
        spec: what to train.
        options: where.
        make_stages: checks the inputs and makes the jobs.
        summarise: prints a table of the finished models, and returns the last lines of the output.

    Raises:
        ValueError: if an input or an option is wrong, or if a job failed; the models that were finished are kept.
        LockedError: if another command is writing to the folder.
    """
    announce_code(spec)
    resources = spec.resources.changed(options.pool, options.workers)
    resources.check_address(options.address)
    spec = spec.model_copy(update={"resources": resources})
    folder = (options.out or Path("runs") / spec.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    busy = LockedError(f"{folder}: another `lines {command}` is writing there")
    with locked(folder / f"{command}.lock", busy):
        with _workers(resources, options.address) as (device_type, execute):
            with progress_bar() as report:
                stages = make_stages(spec, folder, device_type, report)
            failures = _train(stages, folder, execute)
        result = summarise(spec, folder)
    if failures:
        raise ValueError("\n".join(failures.values()))
    print_result(result)


@contextmanager
def _workers(resources: Resources, address: str | None) -> Iterator[tuple[str, _Execute]]:
    """Yield the type of the workers' device, and the function that gives them jobs."""
    if resources.pool == "local":
        yield "cuda" if torch.cuda.is_available() else "cpu", train_here
        return
    with local_ray(address=address):
        shape = actor_shape(resources)
        yield "cuda" if shape.num_gpus else "cpu", partial(train_on_ray, shape=shape)


def _train(stages: Iterable[Stage[Any]], folder: Path, execute: _Execute) -> Mapping[str, str]:
    """Train stage after stage until one fails; return name -> cause."""
    for stage in stages:
        conditions = {job.name: job.condition() for job in stage.jobs}
        _print_conditions(conditions)
        left = [job for job in stage.jobs if conditions[job.name] != "finished"]
        with TrainingDisplay(progress_console(), left, stage.noun).shown() as display:
            failures = execute(stage.train, left, display) if left else {}
        if failures := failures or _missing(left, folder):
            return failures
    return {}


def _print_conditions(conditions: Mapping[str, Condition]) -> None:
    """Print which models are finished, and which resume from a checkpoint."""
    for kind, verb in (("finished", "are finished"), ("started", "resume from a checkpoint")):
        if names := [name for name, found in conditions.items() if found == kind]:
            more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
            text = f"{len(names)} of {len(conditions)} {verb}: {', '.join(names[:_MAX_NAMES])}{more}"
            console.print(text, highlight=False)


def _missing(jobs: Sequence[TrainingJob], folder: Path) -> Mapping[str, str]:
    """Return what to do if workers wrote results to another disk, under the name of the first."""
    if not (missing := [job.name for job in jobs if job.condition() != "finished"]):
        return {}
    return {
        missing[0]: f"--out: {folder}: {len(missing)} models were trained but are not here ({', '.join(missing[:3])}): "
        "workers on other nodes wrote them to their own disks; give a folder that all nodes share"
    }
