"""Everybody who looks on while a run works: the terminal, the file that a dashboard reads, Prometheus."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.run.progress import RunProgress
from pipeline.spec.run import RunSpec
from pipeline.watch.progress_file import ProgressFile

Observer = Callable[[RunProgress], None]


@contextmanager
def watched(spec: RunSpec, folder: Path, *others: Observer) -> Iterator[Observer]:
    """One callback for all of them, for as long as the run works.

    Args:
        spec: of the run.
        folder: of the run.
        others: who looks on besides, called first.
    """
    file = ProgressFile(folder)
    every: list[Observer] = [*others, file]
    if spec.resources.pool == "ray":
        from pipeline.watch.prometheus import RayMetrics  # Ray: not for runs in this process

        every.append(RayMetrics(spec.name))

    def watch(progress: RunProgress) -> None:
        for one in every:
            one(progress)

    try:
        yield watch
    finally:
        file.remove()
