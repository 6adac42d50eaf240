"""The cost of a whole command by its number of candidates: CPU seconds of `lines run` with tables and report.

A merge of the 8 embedded experts over a grid of constants, a few validation images of each task, one process without
Ray and without the score cache; images are decoded beforehand. A candidate's cost should not grow with their number.
Run: python -m benchmarks.growth
"""

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.side_by_side.timing import Timing, timed
from benchmarks.sweep import spec_of

_LINES = (sys.executable, "-c", "from pipeline.cli.main import main; main()")


def measure(folder: Path, candidates: int, images: int) -> Timing:
    """Run a grid of this many candidates in a new folder."""
    place = folder / f"run-{candidates}"
    spec = folder / f"{candidates}.yaml"
    spec.write_text(yaml.safe_dump({**spec_of(candidates, images), "name": f"{candidates} candidates"}))
    words = [*_LINES, "run", str(spec), "--out", str(place), "--no-cache", "--pool", "local"]
    return timed(words, folder / f"{candidates}.log", {"OMP_NUM_THREADS": "1"})


def main() -> None:
    """Print one row for each number of candidates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--images", type=int, default=16, help="of each task on validation")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(folder, 1, options.images)  # decodes, and warms the page cache
        print("| candidates | wall | CPU | CPU a candidate more | peak memory |\n|---|---|---|---|---|")
        before: tuple[int, Timing] | None = None
        for count in options.candidates:
            found = measure(folder, count, options.images)
            more = f"{1000 * (found.cpu - before[1].cpu) / (count - before[0]):.0f} ms" if before else ""
            print(f"| {count:,} | {found.wall:.1f} s | {found.cpu:.1f} s | {more} | {found.peak:.0f} MB |", flush=True)
            before = count, found


if __name__ == "__main__":
    main()
