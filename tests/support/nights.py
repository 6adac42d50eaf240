"""Runs with random outcomes, and their comparison by `lines regress`."""

import numpy as np

from pipeline.regress.compare import Regression, compare
from pipeline.regress.pairs import Allowed
from pipeline.regress.snapshot import ScoredModel, Snapshot
from pipeline.spec.thresholds import Regress

TASKS = ("a", "b", "c", "d")
BITS = "bits_per_byte"
N = 200


def night(rates: dict[str, float], seed: int, day: int = 1, metric: str = "accuracy") -> Snapshot:
    """A run of one merge on four tasks, with random outcomes."""
    rng = np.random.default_rng(seed)
    rows = []
    for task in TASKS:
        drawn = rng.random(N) < rates.get(task, 0.8) if metric == "accuracy" else rng.normal(rates.get(task, 0), 1, N)
        rows.append(ScoredModel("sum", "merge", "", "", "id", "[]", task, "target", metric, drawn.astype(np.float64)))
    tasks = [{"name": task, "fingerprint": "f", "n": {"val": 1, "test": N}} for task in TASKS]
    about = {
        "name": "night",
        "spec": {},
        "tasks": tasks,
        "checkpoints": {},
        "versions": {},
        "numerics": "",
        "failures": [],
    }
    return Snapshot(f"night {seed}", {**about, "started": f"2026-01-{day:02}T00:00:00+00:00"}, tuple(rows))


def held(now: Snapshot, before: Snapshot, **regress: object) -> Regression:
    return compare(now, before, Regress.model_validate(regress), Allowed())
