"""Load the tasks of a spec."""

from collections.abc import Iterable, Mapping

from pipeline.loading.model import Report
from pipeline.messages import Identity
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, Task, TaskRequest
from tasks.loading import load_task
from tasks.metrics import lower_is_better


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
            report(f"preparing {name}", done, total)

        where = f"ood.{name}" if name in spec.ood else f"tasks.{name}"
        try:
            tasks[name] = load_task(request, backbone, progress)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(f"tasks.{name}") else f"{where}: {text}") from error
        for split in ("test",) if name in spec.ood else ("val", "test"):
            if tasks[name].num_samples(split) == 0:
                ood = "a set with only test samples belongs under `ood`; else " * (split == "val")
                raise ValueError(f"{where}: {task.source}: has no {split} samples; {ood}add some")
    _check_targets(spec, tasks)
    return tasks


def _check_targets(spec: RunSpec, tasks: Mapping[str, Task]) -> None:
    """Require a target whose larger values are better for each expert.

    Raises:
        ValueError: if one has another; the expert is named.
    """
    for expert in spec.experts:
        task = spec.target(expert)
        if lower_is_better(tasks[task].metric):
            raise ValueError(
                f"experts.{expert}: its target {task} is measured in {tasks[task].metric}, which can be a control or a "
                "shifted set: give the expert a target with an accuracy"
            )


def load_unchanged(spec: RunSpec, backbone: Backbone, identity: Identity, used: Iterable[str]) -> dict[str, Task]:
    """Load the tasks of a finished run, whose validation data are used again.

    Args:
        spec: of the run.
        backbone: of the run.
        identity: of the run.
        used: the tasks that must have the run's data.

    Raises:
        ValueError: if the data of one have changed.
    """
    tasks = load_tasks(spec, backbone, lambda what, done, total: None)
    for name in dict.fromkeys(used):
        now, then = (tasks[name].fingerprint, tasks[name].num_samples("val")), identity.tasks[name][:2]
        if now != then:
            raise ValueError(f"tasks.{name}: is {now[0]} with {now[1]} samples, but the run used {then[0]}, {then[1]}")
    return tasks
