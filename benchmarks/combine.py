"""Peak memory and time of combining 20 experts of a ViT-B/32 by TIES and Consensus, against flattened vectors.

Ours reads task vectors from .safetensors files entry by entry. The other side follows the authors' code: all experts
are rows of one matrix. Both must give equal tensors. Each runs in its own process with one thread; files are in the
page cache. Run: python -m benchmarks.combine (--width 768 --sides ours for the whole tower, which flattened takes more
than 40 GB)
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.rebuild import tower_shapes
from pipeline.checkpoints.lazy import Difference, StoredTensors
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts
from pipeline.parameters import resolve

KEEP, TALL_LAMBDA, THRESHOLD = 20, 0.4, 2


def write_experts(folder: Path, width: int, experts: int) -> int:
    """Write a random base and experts that differ from it by a hundredth; return the number of entries."""
    generator = torch.Generator().manual_seed(0)
    base = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in tower_shapes(width).items()}
    save_file(base, folder / "base.safetensors")
    for i in range(experts):
        tuned = {n: t + 2e-4 * torch.randn(t.shape, generator=generator) for n, t in base.items()}
        save_file(tuned, folder / f"expert_{i:02}.safetensors")
    return sum(t.numel() for t in base.values())


def ours(method: str, base: Path, experts: list[Path]) -> dict[str, Tensor]:
    """Combine by `METHODS`."""
    params = {"ties": {"keep": KEEP}, "consensus": {"tall_lambda": TALL_LAMBDA, "threshold": THRESHOLD}}[method]
    theta0 = load_file(base)
    deltas = [Difference(theta0, StoredTensors([path])) for path in experts]
    resolved = resolve(METHODS[method].parameters, params)
    return dict(METHODS[method].combine(Experts(deltas, theta0), (1,) * len(deltas), resolved))


def flattened(method: str, base: Path, experts: list[Path]) -> dict[str, Tensor]:
    """Combine by operations on the whole matrix (experts, entries)."""
    start = load_file(base)
    theta0 = _flat(start)
    tuned = torch.stack([_flat(load_file(path)) for path in experts])
    merged = (_flat_ties if method == "ties" else _flat_consensus)(theta0, tuned)
    parts = torch.split(merged, [start[name].numel() for name in sorted(start)])
    return {name: part.view(start[name].shape) for name, part in zip(sorted(start), parts, strict=True)}


def _flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([state[name].reshape(-1) for name in sorted(state)])


def _flat_ties(theta0: Tensor, tuned: Tensor) -> Tensor:
    vectors = tuned - theta0
    count = vectors.shape[1]
    least = vectors.abs().kthvalue(count - int(count * (KEEP / 100)), dim=1, keepdim=True).values
    trimmed = vectors * (vectors.abs() >= least)
    sign = trimmed.sum(0).sign()
    sign[sign == 0] = sign.sum().sign()
    elected = trimmed * torch.where(sign > 0, trimmed > 0, trimmed < 0)
    return elected.sum(0) / (elected != 0).sum(0).clamp(min=1)


def _flat_consensus(theta0: Tensor, tuned: Tensor) -> Tensor:
    total = (tuned - theta0).sum(0)
    from_base, from_merged = (theta0 - tuned).abs(), (theta0 + total - tuned).abs()
    masks = from_base > from_merged * TALL_LAMBDA
    return total * (masks.sum(0) >= THRESHOLD)


SIDES: dict[str, Callable[[str, Path, list[Path]], dict[str, Tensor]]] = {"ours": ours, "flattened": flattened}


@contextmanager
def peak_of_anonymous_memory() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the peak growth of this process's memory in bytes, without pages of files."""
    before, peak, done = _anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], _anonymous() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: max(peak[0], _anonymous() - before)
    finally:
        done.set()
        thread.join()


def _anonymous() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def measure(side: str, method: str, folder: Path) -> dict[str, object]:
    """Run one side in this process; write its tensors to a file."""
    torch.set_num_threads(1)
    experts = sorted(folder.glob("expert_*.safetensors"))
    with peak_of_anonymous_memory() as peak:
        started, cpu = time.perf_counter(), time.thread_time()
        combined = SIDES[side](method, folder / "base.safetensors", experts)
        seconds, cpu = time.perf_counter() - started, time.thread_time() - cpu
        grown = peak()
    save_file(combined, folder / f"{side}.safetensors")
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "memory": grown, "max_rss": whole}


def compare(method: str, sides: list[str], folder: Path, entries: int) -> None:
    """Print one line a side, and the ratios; check that the tensors are equal."""
    found = {}
    for side in sides:
        command = [sys.executable, "-m", "benchmarks.combine", "--measure", side, method, str(folder)]
        found[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(json.dumps({"method": method, "side": side, "entries": entries} | found[side]), flush=True)
    if len(found) == 2:
        first, second = (load_file(folder / f"{side}.safetensors") for side in sides)
        assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first), "not equal"
        memory, seconds = (found["ours"][what] / found["flattened"][what] for what in ("memory", "cpu_seconds"))
        print(f"{method}: equal tensors; {memory:.3f} of the memory, {seconds:.2f} of the time", flush=True)


def main() -> None:
    """Print one JSON line for each method and side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256, help="of the tower; 768 is ViT-B/32")
    parser.add_argument("--experts", type=int, default=20)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--measure", nargs=3, metavar=("SIDE", "METHOD", "FOLDER"), help="run one side in this process")
    options = parser.parse_args()
    if options.measure:
        side, method, folder = options.measure
        print(json.dumps(measure(side, method, Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        entries = write_experts(Path(folder), options.width, options.experts)
        for method in ("ties", "consensus"):
            compare(method, options.sides, Path(folder), entries)


if __name__ == "__main__":
    main()
