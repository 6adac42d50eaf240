"""Sweeps side by side: `lines run`, the structure of the authors' loop, and a plain script, on the same files.

All merge three ViT-T/32 by LiNeS over a grid of beta, score every candidate on the validation images of three tasks,
and the best on test. Each side is a command in a process of its own, with one thread of torch; sides take turns. Their
correct answers are compared candidate by candidate. `lines run` begins with empty caches ("first run"), or with the
images that an earlier run has decoded; it also scores its references, which the others do without, and writes tables
and a report. The cost of a candidate is the difference between two lengths of the grid.

`benchmarks/side_by_side/authors_loop.py` is our restatement of the loop in the authors' repository, not their code.
mergekit is compared in `benchmarks.merge`. Run: python -m benchmarks.peers
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from benchmarks.side_by_side.timing import Timing, timed
from benchmarks.side_by_side.workload import SIZES, Workload, betas, write

_SCRIPTS = Path(__file__).parent / "side_by_side"
_LINES = (sys.executable, "-c", "from pipeline.cli.main import main; main()")
#: Answers that may differ of all answers of a side: the order of additions may turn an image on the border.
_TOLERATED = 0.002


@dataclass(frozen=True)
class Counts:
    """Correct answers: of each candidate on each task of validation, and of the best on test.

    None where a run stopped a candidate that could not become the best.
    """

    val: list[list[int | None]]
    best: float
    test: list[int]

    @property
    def all(self) -> list[int | None]:
        """Every count."""
        return [*(count for counts in self.val for count in counts), *self.test]


Side = Callable[[Workload, Path], tuple[Timing, Counts]]


def spec_of(work: Workload) -> dict[str, object]:
    """Return the spec of the sweep."""
    folder = work.folder
    scaling = {"function": "linear", "alpha": "auto", "beta": {"grid": list(work.betas)}}
    return {
        "name": "side by side",
        "backbone": {"family": "open_clip", "model": str(folder / "open_clip_config.json")},
        "base": str(folder / "base.safetensors"),
        "experts": {task: str(folder / f"{task}.safetensors") for task in SIZES},
        "tasks": {task: str(folder / "data" / task) for task in SIZES},
        "arms": {"LiNeS": {"merge": "sum", "scaling": scaling, "select": {"maximise": "accuracy"}}},
    }


def lines(work: Workload, place: Path, pool: str = "local", cache: Path | None = None) -> tuple[Timing, Counts]:
    """Run our sweep without scores of other runs; with an empty cache unless one is given."""
    spec, out = place / "spec.yaml", place / "run"
    spec.write_text(yaml.safe_dump(spec_of(work), sort_keys=False))
    environment = {"OMP_NUM_THREADS": "1", "LINES_SWEEP_CACHE": str(cache or place / "cache")}
    words = [*_LINES, "run", str(spec), "--out", str(out), "--no-cache", "--pool", pool, "--workers", "1"]
    timing = timed(words[: -2 if pool == "local" else None], place / "log", environment)
    return timing, _counts(work, out)


def _counts(work: Workload, run: Path) -> Counts:
    """Read the correct answers from a run's tables."""
    chosen, points = 0, {}
    for row in pq.read_table(run / "candidates.parquet").to_pylist():
        if row["arm"] == "LiNeS":
            points[row["number"]] = work.betas.index(json.loads(row["point"])["beta"]) if len(work.betas) > 1 else 0
            chosen = row["number"] if row["chosen"] else chosen
    rows = [row for row in pq.read_table(run / "scores.parquet").to_pylist() if row["arm"] == "LiNeS"]
    found = {(points[r["number"]], r["task"], r["split"]): round(r["value"] * r["n"]) for r in rows}
    best = points[chosen]
    val = [[found.get((i, task, "val")) for task in SIZES] for i in range(len(work.betas))]
    return Counts(val, work.betas[best], [found[best, task, "test"] for task in SIZES])


def script(name: str, words: Sequence[str], work: Workload, place: Path) -> tuple[Timing, Counts]:
    """Run another side's script."""
    command = [sys.executable, str(_SCRIPTS / f"{name}.py"), work.to_json(), *words]
    timing = timed(command, place / "log", {"OMP_NUM_THREADS": "1"})
    return timing, Counts(**json.loads(timing.output.splitlines()[-1]))


def sides(cache: Path, loader_workers: Sequence[int], ray: bool) -> dict[str, Side]:
    """Return the sides by name; the second uses what was decoded into `cache` before."""
    found: dict[str, Side] = {
        "lines run, first run": lines,
        "lines run, images decoded": partial(lines, cache=cache),
        **{
            f"authors' loop restated, {count} loader workers": partial(script, "authors_loop", [str(count)])
            for count in loader_workers
        },
        "Optuna + open_clip script": partial(script, "plain_script", []),
    }
    return found | ({"lines run, Ray, one worker": partial(lines, pool="ray", cache=cache)} if ray else {})


def check(name: str, mine: Counts, other: Counts, images: int) -> int:
    """Return how many correct answers more or fewer a side has, over all candidates.

    Raises:
        RuntimeError: if it has another best candidate, or too many differ.
    """
    both = [(a, b) for a, b in zip(mine.all, other.all, strict=True) if a is not None and b is not None]
    differing = sum(abs(a - b) for a, b in both)
    if mine.best != other.best or differing > _TOLERATED * images * len(mine.all):
        raise RuntimeError(f"{name}: {differing} answers differ: {mine} against {other}")
    return differing


def compare(folder: Path, chosen: dict[str, Side], images: int, lengths: tuple[int, int], rounds: int) -> None:
    """Print the tables."""
    measured: dict[str, dict[int, list[Timing]]] = {}
    differing: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        lines(Workload(folder, betas(1)), Path(name), cache=folder / "cache")  # decodes, and warms the page cache
    for _ in range(rounds):
        for count in lengths:
            found: dict[str, Counts] = {}
            for side, run in chosen.items():
                with tempfile.TemporaryDirectory() as name:
                    timing, found[side] = run(Workload(folder, betas(count)), Path(name))
                measured.setdefault(side, {}).setdefault(count, []).append(timing)
                mine = next(iter(found.values()))
                other = check(side, mine, found[side], images)
                differing[side] = differing.get(side, 0) + other
                took = f"{timing.wall:7.1f} s, {timing.cpu:7.1f} s CPU, {other} answers differ"
                print(f"{count:3} candidates: {side:42} {took}", flush=True)
        print(f"accuracy of the best candidate on test: {[round(n / images, 3) for n in mine.test]}", flush=True)
    _table(measured, differing, lengths)


def _table(measured: dict[str, dict[int, list[Timing]]], differing: dict[str, int], lengths: tuple[int, int]) -> None:
    few, many = lengths
    ours = next(iter(measured.values()))
    print(f"\n| side | {few} candidates: wall, CPU, peak | CPU / first run's | {many}: CPU | ratio |")
    print("|---|---|---|---|---|")
    for side, of in measured.items():
        cells = [f"{_median([t.wall for t in of[few]]):.0f} s, {_median([t.cpu for t in of[few]]):.1f} s, "]
        cells[0] += f"{_median([t.peak for t in of[few]]):.0f} MB"
        cells += [
            _ratio(of[few], ours[few]),
            f"{_median([t.cpu for t in of[many]]):.1f} s",
            _ratio(of[many], ours[many]),
        ]
        print(f"| {side} | {' | '.join(cells)} |")
    print("\n| side | CPU a candidate more | ratio | answers that differ |\n|---|---|---|---|")
    base = _slopes(ours, lengths)
    for side, of in measured.items():
        slopes = _slopes(of, lengths)
        ratios = _spread([a / b for a, b in zip(slopes, base, strict=True)])
        print(f"| {side} | {_median(slopes):.2f} s | {ratios} | {differing[side]} |")


def _slopes(of: dict[int, list[Timing]], lengths: tuple[int, int]) -> list[float]:
    few, many = lengths
    return [(b.cpu - a.cpu) / (many - few) for a, b in zip(of[few], of[many], strict=True)]


def _ratio(of: list[Timing], ours: list[Timing]) -> str:
    return _spread([a.cpu / b.cpu for a, b in zip(of, ours, strict=True)])


def _spread(values: Sequence[float]) -> str:
    return f"{_median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def main() -> None:
    """Write the files, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="of each task, for validation and for test")
    parser.add_argument("--candidates", type=int, nargs=2, default=(4, 10), help="two lengths of the grid")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--loader-workers", type=int, nargs="*", default=[0, 2], help="of the authors' loop; theirs: 16"
    )
    parser.add_argument("--ray", action="store_true", help="also a run with Ray and one worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, options.images)
        chosen = sides(folder / "cache", options.loader_workers, options.ray)
        compare(folder, chosen, options.images, tuple(options.candidates), options.rounds)


if __name__ == "__main__":
    main()
