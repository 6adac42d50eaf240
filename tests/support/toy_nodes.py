"""Several Ray nodes on this machine, on loopback, and toys that behave as their node's environment demands."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from toy import ToyEvaluator

from pipeline.cluster.ray_private import stay_on_loopback
from pipeline.messages import EvalRequest, Failure, ShardScore, WorkerInfo
from pipeline.pools.ray_pool import RayPool

_STORE = 80 * 2**20


class NodeToy(ToyEvaluator):
    """A toy on a node that works unless an environment variable is set.

    TOY_FULL: cannot load, as on a full disk. TOY_OTHER: loads something else. TOY_DEADLY: dies of every request.
    TOY_SLOW: a file, made with the first request; each takes longer than any test.
    """

    def __init__(self, name: str, delay: float = 0.05) -> None:
        super().__init__(name, delay=delay)
        if "TOY_FULL" in os.environ:
            raise OSError(errno.ENOSPC, "No space left on device", "/cache/base")

    def info(self) -> WorkerInfo:
        return replace(super().info(), fingerprint=os.environ.get("TOY_OTHER", "toy"))

    def evaluate(self, request: EvalRequest) -> ShardScore:
        if "TOY_DEADLY" in os.environ:
            os._exit(1)
        if "TOY_SLOW" in os.environ:
            Path(os.environ["TOY_SLOW"]).touch()
            time.sleep(3600)
        return super().evaluate(request)


class Asleep(ToyEvaluator):
    """Writes its process id at the first request, and never answers."""

    def __init__(self, name: str, file: str) -> None:
        super().__init__(name)
        self._file = Path(file)

    def evaluate(self, request: EvalRequest) -> ShardScore:
        self._file.write_text(str(os.getpid()))
        time.sleep(3600)
        return super().evaluate(request)


class Nodes:
    """A cluster to which nodes can be added."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self.address = cluster, cluster.address

    @contextmanager
    def joined(self, **resources: Any) -> Iterator[Any]:
        """Add a node for a while; `env_vars` are those of its workers."""
        node = self.add(**resources)
        try:
            yield node
        finally:
            self._cluster.remove_node(node, allow_graceful=True)

    def add(self, **resources: Any) -> Any:
        return self._cluster.add_node(object_store_memory=_STORE, include_log_monitor=False, **resources)

    def remove(self, node: Any) -> None:
        """Send SIGKILL to all processes of a node."""
        self._cluster.remove_node(node, allow_graceful=False)


_SUPPORT = Path(__file__).parent
#: The PYTHONPATH of processes that import the toys.
TOYS = os.pathsep.join([str(_SUPPORT), str(_SUPPORT.parents[1])])


@contextmanager
def ray_for_toys(**resources: Any) -> Iterator[None]:
    """Start a Ray of one node whose workers can import the toys."""
    stay_on_loopback()
    environment = {"env_vars": {"PYTHONPATH": TOYS}}
    ray.init(address="local", include_dashboard=False, log_to_driver=False, runtime_env=environment, **resources)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def cluster_of_nodes(head: dict[str, Any]) -> Iterator[Nodes]:
    """Start a head to which nodes can be added, and connect this process."""
    stay_on_loopback()
    cluster, before = Cluster(), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = TOYS
    try:
        cluster.add_node(include_dashboard=False, object_store_memory=_STORE, **head)
        ray.init(address=cluster.address, log_to_driver=False)
        yield Nodes(cluster)
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


class Noted(RayPool):
    """A pool that keeps its answers."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.answers: list[ShardScore | Failure] = []
        super().__init__(*arguments, **named)

    def wait(self, timeout: float | None = None) -> list[ShardScore | Failure]:
        found = super().wait(timeout)
        self.answers += found
        return found

    def answered_by(self, worker: str) -> int:
        return sum(a.worker == worker for a in self.answers)
