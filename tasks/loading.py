"""Load a task: a registered one by its name, one of a registered source, of the backbone's family, or images."""

from dataclasses import replace

from tasks import embedded
from tasks.base import Backbone, Task, TaskRequest
from tasks.embedded.sums import check
from tasks.registry import FAMILY_TASKS, SOURCES, TASKS
from tasks.vision.classification import zero_shot
from tasks.vision.decoded import Progress
from tasks.vision.sources import image_source


def load_task(request: TaskRequest, backbone: Backbone, progress: Progress | None = None) -> Task:
    """Load a task: a registered one by name, else by its source or the backbone's family.

    Otherwise it is zero-shot classification of `image_source(request)`.

    The driver calls this first, with `progress`, which writes images and heads to the cache. The same call in a worker
    maps them into memory within milliseconds, or prepares them again if its machine does not share the cache.
    """
    if request.source in TASKS:
        return TASKS[request.source](request, backbone, progress)
    if (prefix := request.source.split("/", 1)[0]) != request.source and prefix in SOURCES:
        return SOURCES[prefix](request, backbone, progress)
    if (family := getattr(backbone, "family", "")) in FAMILY_TASKS:
        return FAMILY_TASKS[family](_with_folder(request), backbone, progress)
    return zero_shot(request, backbone, image_source(request), progress)


def _with_folder(request: TaskRequest) -> TaskRequest:
    """Name an embedded text task by its folder, after checking its files."""
    name = request.source.removeprefix("embedded/")
    if name == request.source:
        return request
    folder = embedded.text_path(name)
    for path in folder.iterdir():
        check(path)
    return replace(request, source=str(folder))
