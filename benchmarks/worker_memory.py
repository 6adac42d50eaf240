"""Memory and loading time of several workers on one machine, which share base and task vectors, or keep their own.

Each worker is a process that loads a random CLIP ViT-B/32 with experts, merges them once, and scores 16 images. Memory
is its share in proportion (PSS), read while all workers hold theirs, so the sum is what the machine needs; "own" is the
part that no other process has. Run: python -m benchmarks.worker_memory --workers 2 4 --experts 8
"""

import argparse
import multiprocessing as mp
import os
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from pipeline.loading.prepare import prepare
from pipeline.messages import EvalRequest
from pipeline.recipe import Recipe
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from pipeline.workers.worker import Worker

_MODEL = "ViT-B-32-quickgelu"


def write(folder: Path, experts: int) -> None:
    """Write a base with random weights, and experts near it that hold the image tower alone."""
    torch.manual_seed(0)
    model = open_clip.create_model(_MODEL, load_weights=False)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "base.safetensors")
    tower = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
    for index in range(experts):
        noise = torch.Generator().manual_seed(index)
        save_file(
            {n: t + 0.03 * t.std(correction=0) * torch.randn(t.shape, generator=noise) for n, t in tower.items()},
            folder / f"expert-{index}.safetensors",
        )


def spec_of(folder: Path, experts: int, shared: bool) -> RunSpec:
    """Return a spec of one merge; a run of one worker shares nothing."""
    return parse_spec(
        {
            "name": "memory",
            "backbone": {"family": "open_clip", "model": _MODEL},
            "base": str(folder / "base.safetensors"),
            "experts": {f"expert-{i}": str(folder / f"expert-{i}.safetensors") for i in range(experts)},
            "tasks": {f"expert-{i}": "embedded/fashion" for i in range(experts)},
            "limits": {"val": 16, "test": 1},
            "arms": {"sum": {"merge": "sum"}},
            "resources": {"workers": "auto" if shared else 1},
        }
    )


def hold(index: int, spec: RunSpec, start: Barrier, done: Barrier, found: Any) -> None:
    """Load a worker, score a shard, and measure while the others hold theirs."""
    start.wait()
    began, used = time.perf_counter(), time.process_time()
    worker = Worker(f"worker-{index}", spec)
    loaded, wall = time.process_time() - used, time.perf_counter() - began
    recipe = Recipe.make("sum", "linear", "auto", 0.5)
    score = worker.evaluate(EvalRequest(recipe, "id", next(iter(spec.tasks)), "val", 0, 0, 16))
    done.wait()
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in rollup}
    own = sizes["Private_Clean"] + sizes["Private_Dirty"]
    found.put((index, loaded, wall, sizes["Pss"], own, (score.stats, score.alpha)))
    done.wait()


def measure(spec: RunSpec, workers: int) -> list[Any]:
    """Return (index, CPU and wall seconds to load, PSS, own bytes, score) of each worker."""
    context = mp.get_context("spawn")
    start, done, found = context.Barrier(workers), context.Barrier(workers), context.Queue()
    processes = [context.Process(target=hold, args=(i, spec, start, done, found)) for i in range(workers)]
    for process in processes:
        process.start()
    rows = sorted(found.get() for _ in processes)
    for process in processes:
        process.join()
    assert all(row[5] == rows[0][5] for row in rows), "workers differ"
    return rows


def _cells(rows: list[Any]) -> str:
    _, cpu, wall, pss, own, _ = zip(*rows, strict=True)
    each, alone = ", ".join(f"{seconds:.1f}" for seconds in cpu), ", ".join(f"{size / 1e6:.0f}" for size in own)
    return f"{each} s | {sum(cpu):.1f} s | {max(wall):.1f} s | {sum(pss) / 1e9:.2f} GB | {alone} MB"


def main() -> None:
    """Write the files, and print a line for each number of workers and way to keep the vectors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--experts", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LINES_SWEEP_CACHE"] = str(folder / "cache")
        write(folder, options.experts)
        prepare(spec_of(folder, options.experts, True), "cpu", lambda what, done, total: None)
        print("| workers | vectors | loading, CPU: each | all | loading, wall | PSS of all | own of each |")
        print("|---|---|---|---|---|---|---|")
        for workers in options.workers:
            for shared in (False, True):
                rows = measure(spec_of(folder, options.experts, shared), workers)
                print(f"| {workers} | {'shared' if shared else 'own'} | {_cells(rows)} |", flush=True)


if __name__ == "__main__":
    main()
