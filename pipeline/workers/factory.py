"""Makes the evaluators of a pool; pools and processes that only name them here need not import torch."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pipeline.spec.run import RunSpec

if TYPE_CHECKING:
    from pipeline.loading.loaded import Fetch, Loaded
    from pipeline.workers.worker import Worker

#: What a process imports to make a worker, which takes seconds.
WORKER_MODULE = "pipeline.workers.worker"


def worker_factory(
    spec: RunSpec, device_type: str, fetch: "Fetch | None" = None, loaded: "Loaded | None" = None
) -> "Callable[[str], Worker]":
    """Return what makes the worker of a name, in this process or in an actor; for the arguments see `Worker`.

    Example:
        >>> pool = LocalPool(worker_factory(spec, "cpu")("local"))
    """
    return partial(_worker, spec=spec, device_type=device_type, fetch=fetch, loaded=loaded)


def _worker(name: str, spec: RunSpec, device_type: str, fetch: "Fetch | None", loaded: "Loaded | None") -> "Worker":
    from pipeline.workers.worker import Worker

    return Worker(name, spec, device_type, fetch, loaded)
