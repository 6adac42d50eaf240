"""A toy problem without torch: accuracies are a smooth function of the recipe, outcomes are fixed by hashing.

The `Evaluator` uses a formula in place of a model; driver, journal and tables are the real ones.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.messages import EvalRequest, Identity, ShardScore, WorkerInfo
from pipeline.recipe import Recipe
from pipeline.records.sample_order import data_split
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from tasks.stats import Stats

TASKS = ("cats", "dogs", "cars")
SAMPLES = {"val": 90, "test": 130}
IDENTITY = Identity(
    fingerprint="toy",
    tasks={t: (f"toy-{t}", SAMPLES["val"], SAMPLES["test"]) for t in (*TASKS, "cats_ood")},
    metrics={t: "accuracy" for t in (*TASKS, "cats_ood")},
    block_sizes=(10, 10, 10, 10),
    outside_size=5,
    checkpoints={"base": "b0", **{t: f"e-{t}" for t in TASKS}},
    numerics="toy",
)


def toy_spec(**changes: Any) -> RunSpec:
    """Return a spec of edits with controls and a merge with a sampler, on three tasks and an OOD set, shards of 40."""
    grid = {"grid": [0.0, 0.25, "...", 1.0]}
    data: dict[str, Any] = {
        "name": "toy",
        "backbone": {"family": "toy", "model": "toy"},
        "base": "toy/base",
        "experts": {t: f"toy/{t}" for t in TASKS},
        "tasks": {t: f"toy/{t}" for t in TASKS},
        "ood": {"cats_ood": "toy/cats_ood"},
        "arms": {
            "LiNeS": {"edit": "each_expert", "scaling": {"function": "linear", "alpha": grid, "beta": "1 - alpha"}},
            "merge": {
                "merge": "sum",
                "scaling": {"alpha": {"range": [0.0, 1.0]}},
                "search": {"sampler": "tpe", "trials": 12, "in_flight": 3},
            },
        },
        "controls": {"kinds": ["uniform", "reversed"], "constants": 5},
        "shard_size": 40,
    }
    return parse_spec({**data, **changes})


def accuracy(recipe: Recipe, task: str) -> float:
    """Return a value in (0, 1): the target gains with the coefficient at depth 1, others lose with that at depth 0."""
    weights = recipe.weights or (1,) * len(TASKS)
    own = weights[TASKS.index(task)] if task in TASKS and recipe.method != "zero" else 0
    alpha = recipe.alpha if isinstance(recipe.alpha, int | float) else 1 / len(TASKS)
    alpha = 0 if recipe.method == "zero" else alpha
    top = min(alpha + recipe.beta, 1.2)
    return float(np.clip(0.45 + 0.4 * own * top - 0.12 * alpha * alpha * sum(weights), 0.02, 0.98))


class ToyEvaluator:
    """Scores by a formula; can be made to fail.

    Args:
        name: the worker's.
        broken: (task, split) on which it raises.
        delay: seconds that each shard takes.
        die_at: a file; while it exists, the first evaluation removes it and kills the process.
    """

    def __init__(
        self, name: str = "toy", broken: tuple[str, str] | None = None, delay: float = 0.0, die_at: str | None = None
    ) -> None:
        self.name, self._broken, self._delay, self._die_at = name, broken, delay, die_at
        self.evaluated: list[EvalRequest] = []

    def info(self) -> WorkerInfo:
        return IDENTITY.worker(self.name, "none")

    def evaluate(self, request: EvalRequest) -> ShardScore:
        self._die()
        self.evaluated.append(request)
        if (request.task, request.split) == self._broken:
            raise RuntimeError(f"sample {request.start} of {request.task} cannot be scored")
        p = accuracy(request.recipe, request.task)
        rows = request.rows or range(request.start, request.stop)
        outcomes = np.array([_uniform(request.task, data_split(request.split), i) < p for i in rows])
        total = float(outcomes.sum())
        alpha = request.recipe.alpha if isinstance(request.recipe.alpha, int | float) else 1 / len(TASKS)
        return ShardScore(request, Stats(len(outcomes), total, total), outcomes, alpha, (0.0, 0.0), self.name)

    def _die(self) -> None:
        if self._delay:
            import time

            time.sleep(self._delay)
        if self._die_at and Path(self._die_at).exists():
            Path(self._die_at).unlink(missing_ok=True)
            os._exit(1)


def _uniform(task: str, split: str, index: int) -> float:
    digest = hashlib.blake2b(f"{task}/{split}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
