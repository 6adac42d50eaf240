"""Many models at once: on Ray, each with its CPUs and GPUs, or one after the other in this process."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from pipeline.cluster.capacity import ActorShape
from pipeline.errors import describe
from pipeline.train.display import TrainingJob, TrainingStatus

_J = TypeVar("_J", bound=TrainingJob)
#: Told of every job's progress by its name; a job that has just ended is at its total.
WatchTraining = Callable[[Mapping[str, TrainingStatus]], None]
#: Makes the model of one job to its end, and tells how far it is.
Train = Callable[[_J, Callable[[TrainingStatus], None]], None]

#: Seconds from one report of a worker to the next, and from one look at them to the next.
_INTERVAL = 0.5


def work_here(train: Train[_J], jobs: Sequence[_J], watch: WatchTraining) -> dict[str, str]:
    """Train one model after the other; returns name -> cause of those that failed."""
    failures: dict[str, str] = {}
    for job in jobs:
        try:
            train(job, _seldom(partial(_show, watch, job.name)))
        except (ValueError, OSError, RuntimeError, MemoryError) as error:  # torch's lack of memory is a RuntimeError
            failures[job.name] = _told(job.name, error)
    return failures


def _show(watch: WatchTraining, name: str, told: TrainingStatus) -> None:
    watch({name: told})


def work_on_ray(train: Train[_J], jobs: Sequence[_J], shape: ActorShape, watch: WatchTraining) -> dict[str, str]:
    """Train as many models at a time as `shape` says; returns name -> cause of those that failed.

    Ray gives a job whose worker is lost to another one, `shape.retries` times, where it goes on from its checkpoint.
    An error of the training itself is not tried again.
    """
    board: Any = ray.remote(_Board).options(num_cpus=0, max_restarts=-1).remote()
    remote: Any = ray.remote(_train).options(
        num_cpus=shape.num_cpus, num_gpus=shape.num_gpus, max_retries=shape.retries
    )
    waiting, running, failures = list(reversed(jobs)), dict[Any, _J](), dict[str, str]()
    with _ended(running, board):
        while waiting or running:
            while waiting and len(running) < shape.workers:
                job = waiting.pop()
                running[remote.remote(train, job, board)] = job
            done, _ = ray.wait(list(running), num_returns=1, timeout=_INTERVAL)
            with suppress(RayActorError):  # it is made anew where its node is lost; the models go on without it
                watch(ray.get(board.read.remote()))
            for ref in done:
                job = running.pop(ref)
                if cause := _cause(ref, job, shape.retries):
                    failures[job.name] = cause
    return failures


class _Board:
    """The actor that workers report to."""

    def __init__(self) -> None:
        self._told: dict[str, TrainingStatus] = {}

    def tell(self, name: str, told: TrainingStatus) -> None:
        self._told[name] = told

    def read(self) -> dict[str, TrainingStatus]:
        return self._told


def _train(train: Train[_J], job: _J, board: Any) -> None:
    train(job, _seldom(lambda told: board.tell.remote(job.name, told)))


def _seldom(tell: Callable[[TrainingStatus], object]) -> Callable[[TrainingStatus], None]:
    """`tell`, but at most once in an interval, and always of the last step."""
    last = 0.0

    def told(state: TrainingStatus) -> None:
        nonlocal last
        if state.step == state.total or time.monotonic() - last > _INTERVAL:
            last = time.monotonic()
            tell(state)

    return told


@contextmanager
def _ended(running: Mapping[Any, TrainingJob], board: Any) -> Iterator[None]:
    """A cluster that was joined lives on; what still runs there when this process is stopped must not."""
    try:
        yield
    finally:
        ray.kill(board)
        for ref in running:
            ray.cancel(ref, force=True)


def _cause(ref: Any, job: TrainingJob, retries: int) -> str:
    """Why a job failed; empty where it did not."""
    try:
        ray.get(ref)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        return _told(job.name, cause)
    except RayError as error:
        return (
            f"{job.name}: its worker was lost {retries + 1} times; the last: {describe(error)}: is there enough "
            "memory for one model? The same command goes on from its last checkpoint"
        )
    return ""


def _told(name: str, error: BaseException) -> str:
    """A training's error for people: ours say whose it is, those of libraries do not."""
    return str(error) if isinstance(error, ValueError) else f"{name}: {describe(error)}"
