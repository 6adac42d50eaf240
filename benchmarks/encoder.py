"""An 11 x 11 grid of alpha and beta on a T5: passes of the encoder and seconds, with kept outputs and without.

A random T5 of 6 million parameters, one expert, one task of choices. Each side is a whole run with one loaded worker in
this process, tables included, and the tables must be equal. Times are CPU seconds of one thread.
Run: python -m benchmarks.encoder
"""

import argparse
import shutil
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.text_models import write_rows, write_t5
from pipeline.loading.prepare import prepare
from pipeline.messages import EvalRequest, ShardScore
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.run.run import run
from pipeline.spec.load import parse_spec
from pipeline.workers.worker import Worker

BATCH = 16


def write_expert(base: Path, folder: Path) -> None:
    """Write the base with noise on its weights."""
    shutil.copytree(base, folder)
    noise = torch.Generator().manual_seed(0)
    state = load_file(base / "model.safetensors")
    moved = {n: t + 0.05 * t.std() * torch.randn(t.shape, generator=noise) for n, t in state.items()}
    save_file(moved, folder / "model.safetensors", {"format": "pt"})


def spec_of(folder: Path, points: int, gib: float) -> dict[str, Any]:
    """Return a spec of one edit, whose grid has `points` alphas and betas."""
    grid = {"grid": [round((i + 1) / points, 6) for i in range(points)]}
    options = {"encoder_memory": gib}
    return {
        "name": "benchmark",
        "backbone": {"family": "seq2seq", "model": str(folder / "base"), "options": options},
        "base": str(folder / "base"),
        "experts": {"sums": str(folder / "sums")},
        "tasks": {"sums": {"source": str(folder / "rows"), "options": {"batch_size": BATCH}}},
        "arms": {"LiNeS": {"merge": "sum", "scaling": {"function": "linear", "alpha": grid, "beta": grid}}},
        "select": {"maximise": "mean"},
        "controls": [],
        "shard_size": BATCH,
        "resources": {"pool": "local"},
    }


class CountingWorker(Worker):
    """Counts passes of the encoder by split and scaling function; references have none."""

    def __init__(self, *parts: Any) -> None:
        """Load as a worker does, and count."""
        super().__init__(*parts)
        self.passes: Counter[tuple[str, str]] = Counter()
        module: Any = self.backbone.module
        module.get_encoder().register_forward_hook(self._count)
        self._now = ("", "")

    def evaluate(self, request: EvalRequest) -> ShardScore:
        """Score a shard as a worker does."""
        self._now = request.split, request.recipe.scaling
        return super().evaluate(request)

    def _count(self, *of: object) -> None:
        self.passes[self._now] += 1


def measure(spec: dict[str, Any], out: Path) -> tuple[int, float]:
    """Return the encoder's passes for the grid, and the CPU seconds of the whole run."""
    plan = make_plan(parse_spec(spec))
    identity = prepare(plan.spec, "cpu", lambda what, done, total: None)
    worker = CountingWorker("local", plan.spec)
    started = time.process_time()
    run(plan, identity, out, partial(LocalPool, worker), None)
    return worker.passes["val", "linear"], time.process_time() - started


def tables(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each table of a run."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def main() -> None:
    """Print passes and seconds of both sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=11, help="values of alpha, and of beta")
    parser.add_argument("--batches", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_expert(write_t5(folder / "base"), folder / "sums")
        write_rows(folder / "rows", BATCH * options.batches, examples=5)
        for side, gib in (("kept", 1.0), ("without", 0.0)):
            found[side] = measure(spec_of(folder, options.points, gib), folder / side)
            passes, seconds = found[side]
            print(f"{side:8} {passes / options.batches:6.1f} encoder passes a batch, {seconds:7.2f} CPU s", flush=True)
        assert tables(folder / "kept") == tables(folder / "without"), "the tables differ"
    print(f"the same tables; {found['without'][1] / found['kept'][1]:.2f} times as fast with kept outputs")


if __name__ == "__main__":
    main()
