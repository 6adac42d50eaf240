"""Train many models: at the same time on Ray, each with its CPUs and GPUs, or in turn in this process."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from pipeline.cluster.capacity import ActorShape
from pipeline.errors import describe
from pipeline.train.job import J, Train, TrainingJob, TrainingStatus

#: Called with the status of jobs, by name.
WatchTraining = Callable[[Mapping[str, TrainingStatus]], None]

#: Seconds between two reports of a worker, and between two readings of them.
_INTERVAL = 0.5
#: Seconds in which the board has to answer.
_PATIENCE = 10


def train_here(train: Train[J], jobs: Sequence[J], watch: WatchTraining) -> dict[str, str]:
    """Train one model after the other in this process; return name -> cause of the jobs that failed."""
    failures: dict[str, str] = {}
    for job in jobs:

        def report(status: TrainingStatus, name: str = job.name) -> None:
            watch({name: status})

        try:
            train(job, _throttled(report))
        except (ValueError, OSError, RuntimeError, MemoryError) as error:  # torch's lack of memory is a RuntimeError
            failures[job.name] = _cause_text(job.name, error)
    return failures


def train_on_ray(train: Train[J], jobs: Sequence[J], watch: WatchTraining, shape: ActorShape) -> dict[str, str]:
    """Train `shape.workers` models at a time on Ray; return name -> cause of the jobs that failed.

    If a worker is lost, Ray gives its job to another one, up to `shape.retries` times, which resumes from the last
    checkpoint. An error of the training itself is not retried.
    """
    board: Any = ray.remote(_Board).options(num_cpus=0, max_restarts=-1).remote()
    remote: Any = ray.remote(_train).options(
        num_cpus=shape.num_cpus, num_gpus=shape.num_gpus, max_retries=shape.retries
    )
    waiting, running, failures = list(reversed(jobs)), dict[Any, J](), dict[str, str]()
    with _cancelled_at_exit(running, board):
        while waiting or running:
            while waiting and len(running) < shape.workers:
                job = waiting.pop()
                running[remote.remote(train, job, board)] = job
            done, _ = ray.wait(list(running), num_returns=1, timeout=_INTERVAL)
            with suppress(RayActorError, GetTimeoutError):  # Ray restarts a lost board; training does not need it
                watch(ray.get(board.read.remote(), timeout=_PATIENCE))
            for ref in done:
                job = running.pop(ref)
                if cause := _cause(ref, job, shape.retries):
                    failures[job.name] = cause
    return failures


class _Board:
    """The actor that workers report to."""

    def __init__(self) -> None:
        self._states: dict[str, TrainingStatus] = {}

    def report(self, name: str, status: TrainingStatus) -> None:
        self._states[name] = status

    def read(self) -> dict[str, TrainingStatus]:
        return self._states


def _train(train: Train[J], job: J, board: Any) -> None:
    train(job, _throttled(lambda status: board.report.remote(job.name, status)))


def _throttled(report: Callable[[TrainingStatus], object]) -> Callable[[TrainingStatus], None]:
    """Wrap `report` so that it is called at most once an interval, and always for the last step."""
    last = 0.0

    def throttled(status: TrainingStatus) -> None:
        nonlocal last
        if status.step == status.total or time.monotonic() - last > _INTERVAL:
            last = time.monotonic()
            report(status)

    return throttled


@contextmanager
def _cancelled_at_exit(running: Mapping[Any, TrainingJob], board: Any) -> Iterator[None]:
    """Cancel what still runs when this process stops: a cluster that was joined outlives it."""
    try:
        yield
    finally:
        ray.kill(board)
        for ref in running:
            ray.cancel(ref, force=True)


def _cause(ref: Any, job: TrainingJob, retries: int) -> str:
    """Return why a job failed, "" if it did not."""
    try:
        ray.get(ref)
    except RayTaskError as error:
        return _cause_text(job.name, error.cause if isinstance(error.cause, BaseException) else error)
    except RayError as error:
        return (
            f"{job.name}: its worker was lost {retries + 1} times; last: {describe(error)}: check that there is enough "
            "memory for one model; rerun the same command to resume from its last checkpoint"
        )
    return ""


def _cause_text(name: str, error: BaseException) -> str:
    """Return the text of an error; ours name the job, errors of libraries do not."""
    return str(error) if isinstance(error, ValueError) else f"{name}: {describe(error)}"
