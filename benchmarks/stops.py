"""What stopped candidates save: `search.stop` none, exact and race beside each other, on real runs.

A merge of eight embedded experts (objective `mean`) and an edit of one (`2 * target + retained` on four tasks), alpha
and beta from 0 to 1 in steps of 0.1: 121 candidates each. One process without Ray and without the score cache; images
are decoded beforehand. It also says whether the choice is that of scoring everything.
Run: python -m benchmarks.stops
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from benchmarks.regret import spec_of
from benchmarks.side_by_side.timing import Timing, timed

_LINES = (sys.executable, "-c", "from pipeline.cli.main import main; main()")
_STOPS: Mapping[str, Any] = {"none": "none", "exact": "exact", "race": {"race": 0.05}}


def stopping_spec(setting: str, stop: Any, samples: int) -> dict[str, Any]:
    """Return the spec of a setting of `benchmarks.regret` in steps of 0.1."""
    spec = spec_of(setting)
    arm = {key: value for key, value in spec["arms"][setting].items() if key != "test"}
    tenths = {"grid": [i / 10 for i in range(11)]}
    scaling = {**arm["scaling"], "alpha": tenths, "beta": tenths}
    limits = {"val": samples, "test": 1}
    return {**spec, "limits": limits, "arms": {setting: {**arm, "scaling": scaling, "search": {"stop": stop}}}}


def measure(folder: Path, setting: str, name: str, samples: int) -> tuple[Timing, float, int]:
    """Run a setting; return its cost, the part of all sample scores of the search that it needed, and the choice."""
    place = folder / f"{setting}-{name}-{samples}"
    spec = place.with_suffix(".yaml")
    spec.write_text(yaml.safe_dump(stopping_spec(setting, _STOPS[name], samples)))
    words = [*_LINES, "run", str(spec), "--out", str(place), "--no-cache", "--pool", "local"]
    timing = timed(words, place.with_suffix(".log"), {"OMP_NUM_THREADS": "1"})
    rows = [r for r in pq.read_table(place / "candidates.parquet").to_pylist() if r["arm"] == setting]
    spared, whole = 0, 1
    if (place / "stopped.parquet").exists():
        stopped = pq.read_table(place / "stopped.parquet").to_pylist()
        whole = stopped[0]["samples"] * len(rows)
        spared = sum(r["samples"] - r["seen"] for r in stopped)
    return timing, 1 - spared / whole, next(r["number"] for r in rows if r["chosen"])


def main() -> None:
    """Print one row for each setting and way to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=240, help="of each task on validation")
    samples = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| search | stop | sample scores | CPU | the same choice |\n|---|---|---|---|---|")
        for setting in ("merge", "edit"):
            measure(folder, setting, "race", 16)  # decodes, and warms the page cache
            chosen = None
            for stop in _STOPS:
                timing, used, choice = measure(folder, setting, stop, samples)
                chosen = choice if chosen is None else chosen
                same = "yes" if choice == chosen else "no"
                print(f"| {setting} | `{stop}` | {used:.0%} | {timing.cpu:.1f} s | {same} |", flush=True)


if __name__ == "__main__":
    main()
