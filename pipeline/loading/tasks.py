"""Load the tasks of a spec."""

from collections.abc import Mapping

from pipeline.loading.model import Report
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, Task, TaskRequest
from tasks.vision.classification import load_task


def load_tasks(spec: RunSpec, backbone: Backbone, report: Report) -> dict[str, Task]:
    """Load every task; what the caches lack is decoded and encoded first.

    Raises:
        ValueError: if a source or an option is unknown, an image cannot be decoded, or a split has no samples.
    """
    tasks: dict[str, Task] = {}
    for name, task in {**spec.tasks, **spec.ood}.items():
        limits: Mapping[str, int | None] = {**spec.limits, **task.limits}  # type: ignore[dict-item]
        request = TaskRequest(name, task.source, limits, task.options, test_only=name in spec.ood)

        def progress(done: int, total: int, name: str = name) -> None:
            report(f"decoding {name}", done, total)

        where = f"ood.{name}" if name in spec.ood else f"tasks.{name}"
        try:
            tasks[name] = load_task(request, backbone, progress)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(f"tasks.{name}") else f"{where}: {text}") from error
        for split in ("test",) if name in spec.ood else ("val", "test"):
            if tasks[name].num_samples(split) == 0:
                ood = "a set with only test images belongs under `ood`; else " * (split == "val")
                raise ValueError(f"{where}: {task.source}: has no {split} samples; {ood}add images")
    return tasks
