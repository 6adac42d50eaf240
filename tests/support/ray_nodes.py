"""Nodes of a Ray cluster on this machine, each in a mount namespace of its own, in which one folder is empty."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray_head import wait_until

from benchmarks.nodes import NodeProcess, unseen


def permitted() -> bool:
    """Whether this process may make mount namespaces."""
    return shutil.which("unshare") is not None and not subprocess.run(["unshare", "-m", "true"]).returncode


@contextmanager
def nodes(count: int, hidden: Path, caches: Path) -> Iterator[list[Path]]:
    """Add nodes of 2 CPUs to the Ray that is joined, with a cache each; `hidden` is empty to them.

    Yields:
        the folder of each node's cache.
    """
    folders = [caches / f"node-{i}" for i in range(count)]
    started: list[NodeProcess] = []
    try:
        for folder in folders:  # one after the other: names of sockets are taken as they are found free
            started.append(NodeProcess(2, within=unseen(hidden), env={"LINES_SWEEP_CACHE": str(folder)}))
            started[-1].started()
        wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) >= 1 + count, 60)
        yield folders
    finally:
        for node in started:
            node.stop()
