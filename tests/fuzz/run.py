"""Mutate specs, files and caches, and report every case that is neither accepted nor refused with a clear error.

`make fuzz` runs all cases; each has a seed, and `--target NAME --seed N` runs one again, in this process, with its
traceback, and keeps its files. Run: PYTHONPATH=.:tests:tests/support python -m fuzz.run [--most 60] [--jobs 2]
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: forked children must not wait for threads

import pandas  # noqa: E402, F401 - pyarrow imports it when it first writes a table
import torch  # noqa: E402

from fuzz.artefacts import ARTEFACTS  # noqa: E402
from fuzz.checkpoints import Checkpoints  # noqa: E402
from fuzz.pictures import Pictures  # noqa: E402
from fuzz.sandbox import Check, Limits, Result, run_cases, run_here  # noqa: E402
from fuzz.specs import Specs  # noqa: E402
from fuzz.stored import Stored  # noqa: E402


class Target(Protocol):
    """Something whose inputs are mutated."""

    name: str
    share: int
    """Cases of a full run."""
    batch: int
    """Cases that one process may run: more than one if a case cannot change the next."""
    limits: Limits
    """Of one case."""

    def prepare(self, folder: Path) -> None:
        """Write the undamaged inputs."""

    def open(self, prepared: Path) -> Check:
        """Return the cases; this reads nothing that the program would read."""


TARGETS: tuple[Target, ...] = (Specs(), Checkpoints(), Pictures(), *map(Stored, ARTEFACTS))
_PREPARING = Limits(cpu=300, wall=600, resident=4096, reserved=16384)


def fuzz(target: Target, seeds: Sequence[int], folder: Path, jobs: int) -> Iterator[Result]:
    """Prepare a target in a child, so that this process has read nothing, and yield the result of each case."""
    prepared = folder / "prepared"

    def prepare(seed: int, scratch: Path) -> str:
        prepared.mkdir(parents=True)
        target.prepare(prepared)
        return "prepared"

    (ready,) = run_cases(prepare, [0], folder / "preparing", _PREPARING)
    if ready.kind:
        raise RuntimeError(f"{target.name}: cannot be prepared: {ready.detail}\n{ready.text}")
    yield from run_cases(target.open(prepared), seeds, folder / "cases", target.limits, jobs, target.batch)


def report(found: dict[str, list[Result]]) -> Iterator[str]:
    """Yield the findings of each target in groups of one cause, with the seeds of the first ones."""
    for target, results in found.items():
        groups: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
        for r in results:
            groups[r.kind, r.detail.split(":")[0][:60], r.place].append(r)
        for (kind, _, place), group in sorted(groups.items(), key=lambda item: -len(item[1])):
            first = min(group, key=lambda r: r.seed)
            seeds = ", ".join(str(r.seed) for r in sorted(group, key=lambda r: r.seed)[:6])
            yield f"- {target}: {kind} ({len(group)}; seeds {seeds}) {place} {first.detail[:300]}"


def _run_all(targets: Sequence[Target], most: int, first: int, jobs: int) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    print("| input | cases | verdicts | findings | seconds |\n|---|---|---|---|---|", flush=True)
    for target in targets:
        started, verdicts = time.monotonic(), Counter[str]()
        seeds = range(first, first + min(most, target.share))
        with tempfile.TemporaryDirectory() as folder:
            for result in fuzz(target, seeds, Path(folder), jobs):
                verdicts[result.verdict] += 1
                if result.kind:
                    found.setdefault(target.name, []).append(result)
        findings = verdicts.pop("", 0)
        words = ", ".join(f"{n:,} {word}" for word, n in sorted(verdicts.items()))
        took = time.monotonic() - started
        print(f"| {target.name} | {len(seeds):,} | {words} | {findings} | {took:.0f} |", flush=True)
    return found


def _run_one(target: Target, seed: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{seed}-"))
    (folder / "prepared").mkdir()
    target.prepare(folder / "prepared")
    result = run_here(target.open(folder / "prepared"), seed, folder / "case")
    print(result.text or f"{result.verdict}")
    print(f"{result.kind} {result.detail} {result.place}\nfiles: {folder / 'case'}")
    return 1 if result.kind else 0


def main() -> int:
    """Run the command; the exit status is 1 if there is a finding."""
    options = argparse.ArgumentParser()
    options.add_argument("--target", choices=[t.name for t in TARGETS], help="only this one")
    options.add_argument("--seed", type=int, help="run this case alone, in this process; needs --target")
    options.add_argument("--most", type=int, default=10**9, help="cases of each input; fewer than in a full run")
    options.add_argument("--first", type=int, default=0, help="the first seed")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    given = options.parse_args()
    torch.set_num_threads(1)
    targets = [t for t in TARGETS if given.target in (None, t.name)]
    if given.seed is not None:
        return _run_one(targets[0], given.seed)
    found = _run_all(targets, given.most, given.first, given.jobs)
    for line in report(found):
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
