"""The observers of a run in progress: the terminal, the file that a dashboard reads, Prometheus."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.run.progress import RunProgress
from pipeline.spec.run import RunSpec
from pipeline.watch.progress_file import ProgressFile

Observer = Callable[[RunProgress], None]


@contextmanager
def watched(spec: RunSpec, folder: Path, *others: Observer) -> Iterator[Observer]:
    """Yield one callback for all observers of the run in `folder`; `others` are called first."""
    file = ProgressFile(folder)
    observers: list[Observer] = [*others, file]
    if spec.resources.pool == "ray":
        observers.append(_export_once_ray_is_there(spec.name))

    def watch(progress: RunProgress) -> None:
        for observer in observers:
            observer(progress)

    try:
        yield watch
    finally:
        file.remove()


def _export_once_ray_is_there(run: str) -> Observer:
    """Return an observer that exports to Prometheus, and that imports Ray for no run that does without it."""
    exporters: list[Observer] = []

    def observe(progress: RunProgress) -> None:
        if not exporters and "ray" in sys.modules:
            from pipeline.watch.prometheus import export_to_ray

            exporters.append(export_to_ray(run))
        for export in exporters:
            export(progress)

    return observe
