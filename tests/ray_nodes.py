"""Nodes of a Ray cluster on this machine, each in a mount namespace of its own, in which one folder is empty."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

_NODE = """
import sys
from ray._private.node import Node
from ray._private.parameter import RayParams
memory = 100 * 2**20
params = RayParams(
    gcs_address=sys.argv[1], num_cpus=2, num_gpus=0, object_store_memory=memory, include_log_monitor=False,
    node_manager_port=0, min_worker_port=0, max_worker_port=0,
)
params.dashboard_agent_listen_port = None
node = Node(params, head=False, shutdown_at_exit=True, spawn_reaper=True)
sys.stdin.read()
"""


def permitted() -> bool:
    """Whether this process may make mount namespaces."""
    return shutil.which("unshare") is not None and not subprocess.run(["unshare", "-m", "true"]).returncode


@contextmanager
def nodes(count: int, unseen: Path, caches: Path) -> Iterator[list[Path]]:
    """Add nodes of 2 CPUs to the Ray that is joined, with a cache each; `unseen` is empty to them.

    Yields:
        the folder of each node's cache.
    """
    folders = [caches / f"node-{i}" for i in range(count)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for folder in folders:  # one after the other: names of sockets are taken as they are found free
            started.append(_start(unseen, folder))
            _wait(1 + len(started))
        yield folders
    finally:
        for process in started:
            assert process.stdin is not None
            process.stdin.close()
        for process in started:
            process.wait(timeout=60)


def _start(unseen: Path, cache: Path) -> subprocess.Popen[bytes]:
    hide = f"mount -t tmpfs none {unseen} && exec {sys.executable} -c '{_NODE}' $0"
    return subprocess.Popen(
        ["unshare", "-m", "sh", "-c", hide, ray.get_runtime_context().gcs_address],
        env={**os.environ, "LINES_SWEEP_CACHE": str(cache)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _wait(count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) < count:
        assert time.monotonic() < deadline, "the nodes did not join"
        time.sleep(0.1)
