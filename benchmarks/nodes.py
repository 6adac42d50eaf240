"""Ray nodes on this machine, in processes of their own, that join this process's Ray and can be killed."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import ray

#: Like `ray start --address`, but on loopback; it ends when its standard input closes.
_NODE = """
import sys, time
from ray._private.node import Node
from ray._private.parameter import RayParams
address, cpus, gpus = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
params = RayParams(
    gcs_address=address, num_cpus=cpus, num_gpus=gpus, object_store_memory=100 * 2**20, include_log_monitor=False,
    node_manager_port=0, min_worker_port=0, max_worker_port=0,
)
params.dashboard_agent_listen_port = None
node = Node(params, head=False, shutdown_at_exit=True, spawn_reaper=True)
print(node.node_id, node.all_processes["raylet"][0].process.pid, time.time(), flush=True)
sys.stdin.read()
"""


def unseen(folder: Path) -> list[str]:
    """Return a `within` of a mount namespace in which the folder is empty, as on another machine."""
    return ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder)]


class NodeProcess:
    """A node that is starting or has started.

    Attributes:
        began: start time, by `time.time`.
    """

    def __init__(
        self, cpus: float, gpus: float = 0, within: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        """Start it; see `started`.

        Args:
            cpus: CPUs that Ray counts; may be more than the machine has.
            gpus: GPUs that Ray counts.
            within: a command that runs the command after it, for example unshare.
            env: additional environment variables.
        """
        self.began = time.time()
        words = [sys.executable, "-c", _NODE, ray.get_runtime_context().gcs_address, str(cpus), str(gpus)]
        self._process = subprocess.Popen(
            [*within, *words],
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._started: tuple[str, int, float] | None = None

    def started(self) -> tuple[str, int, float]:
        """Wait for the node; return its id, its raylet's process id, and the time when it was up.

        Raises:
            RuntimeError: if it does not start.
        """
        if self._started is None:
            assert self._process.stdout is not None
            if len(words := self._process.stdout.readline().split()) != 3:
                raise RuntimeError("the node did not start: see the logs of Ray")
            self._started = words[0], int(words[1]), float(words[2])
        return self._started

    def kill(self) -> None:
        """Kill all its processes at once, like the loss of a machine; workers would outlive their raylet."""
        raylet = psutil.Process(self.started()[1])
        for process in [raylet, *raylet.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def stop(self) -> None:
        """Stop it, and wait until it has ended."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(timeout=60)
