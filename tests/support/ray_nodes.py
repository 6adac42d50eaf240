"""Nodes of a Ray cluster on this machine, each in its own mount namespace, in which one folder is empty."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray_head import wait_until

from benchmarks.nodes import NodeProcess, unseen


def permitted() -> bool:
    """Whether this process may create mount namespaces."""
    return shutil.which("unshare") is not None and not subprocess.run(["unshare", "-m", "true"]).returncode


@contextmanager
def nodes(count: int, hidden: Path, caches: Path) -> Iterator[list[Path]]:
    """Add nodes of 2 CPUs, each with its own cache, to the connected Ray; they see `hidden` empty.

    Yields:
        the cache folder of each node.
    """
    folders = [caches / f"node-{i}" for i in range(count)]
    started: list[NodeProcess] = []
    try:
        for folder in folders:  # one after the other, as socket names are chosen by what is free
            started.append(NodeProcess(2, within=unseen(hidden), env={"LINES_SWEEP_CACHE": str(folder)}))
            started[-1].started()
        wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) >= 1 + count, 60)
        yield folders
    finally:
        for node in started:
            node.stop()
