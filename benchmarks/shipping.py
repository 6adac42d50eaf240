"""Bytes and time of sending files to nodes that do not see the driver's disk, by the number of workers on each.

There are two real Ray nodes on this machine, each in a mount namespace in which the files' folder is empty, with its
own cache. On each, 1, 2 or 4 processes at once request a spec's files: a base and four experts of random bytes, and a
folder of small files. Needs root for the namespaces. Run: python -m benchmarks.shipping
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchmarks.nodes import NodeProcess, unseen
from pipeline.cluster.files.transfer import FileTransfer, file_transfer
from pipeline.cluster.session import local_ray
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec

_EXPERTS, _IMAGES = 4, 2000


def spec_of(folder: Path, megabytes: int) -> RunSpec:
    """Write the files, and return a spec that names them."""
    for i in range(_EXPERTS + 1):
        (folder / f"{i}.pt").write_bytes(os.urandom(megabytes * 2**20 // (_EXPERTS + 1)))
    for i in range(_IMAGES):
        place = folder / "set" / "test" / str(i % 10) / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.urandom(4096))
    return parse_spec(
        {
            "name": "shipping",
            "backbone": {"family": "none", "model": "none"},
            "base": str(folder / "0.pt"),
            "experts": {f"e{i}": str(folder / f"{i}.pt") for i in range(1, _EXPERTS + 1)},
            "tasks": {f"e{i}": "embedded/mnist" for i in range(1, _EXPERTS + 1)},
            "ood": {"set": str(folder / "set")},
            "arms": {"sum": {"merge": "sum"}},
        }
    )


def fetched(fetch: FileTransfer, spec: RunSpec, nodes: list[str], each: int) -> float:
    """Request the files from `each` processes a node at once; return the seconds."""
    remote = ray.remote(lambda: fetch(spec).base)
    # Fractions of a CPU, so that all processes fit.
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes for _ in range(each)]
    warm = ray.remote(lambda: time.sleep(1))
    ray.get([warm.options(num_cpus=0.25, scheduling_strategy=place).remote() for place in places])
    started = time.perf_counter()
    ray.get([remote.options(num_cpus=0.25, scheduling_strategy=place).remote() for place in places])
    return time.perf_counter() - started


def main() -> None:
    """Print the table of docs/internals/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500, help="total size of the checkpoints")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, local_ray(num_cpus=0):
        hidden = Path(work) / "hidden"
        hidden.mkdir()
        spec = spec_of(hidden, options.megabytes)
        size = sum(path.stat().st_size for path in hidden.rglob("*") if path.is_file())
        print(f"files: {size / 1e6:.0f} MB\n")
        print("| workers a node | MB sent to each of 2 nodes | seconds | seconds, from the cache |\n|---|---|---|---|")
        caches = [Path(work) / f"node-{i}" for i in range(2)]
        started: list[NodeProcess] = []
        try:
            for cache in caches:
                started.append(NodeProcess(1, within=unseen(hidden), env={"LINES_SWEEP_CACHE": str(cache)}))
                started[-1].started()
            for each in (1, 2, 4):
                _row([node.started()[0] for node in started], each, spec, caches)
        finally:
            for node in started:
                node.stop()


def _row(nodes: list[str], each: int, spec: RunSpec, caches: list[Path]) -> None:
    with file_transfer(spec) as fetch:
        assert fetch is not None
        first, second = (fetched(fetch, spec, nodes, each) for _ in range(2))
        sent = {node: 0 for node in nodes}
        for (node, _), count in ray.get(fetch.sender.sent.remote()).items():
            sent[node] += count
    print(f"| {each} | {' and '.join(f'{n / 1e6:.0f}' for n in sent.values())} | {first:.1f} | {second:.2f} |")
    for cache in caches:
        shutil.rmtree(cache)


if __name__ == "__main__":
    main()
