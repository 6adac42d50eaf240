"""Simulated runs of `benchmarks.scale`: specs of any size, scores by a formula, times of real workers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulation.workers import Service
from pipeline.messages import EvalRequest, Identity, ShardScore
from pipeline.plan.plan import Plan, make_plan
from pipeline.records.journal import read_history
from pipeline.spec.load import parse_spec
from tasks.stats import Stats

EXPERTS = 8


@dataclass(frozen=True, slots=True)
class Case:
    """The size of a run.

    Attributes:
        workers: number of simulated workers.
        candidates: number of searched candidates, besides the references.
        tasks: number of tasks, with `samples` images each in shards of `shard_size`.
        arm: grid (one merge), edits (one grid for each expert), rescaled (a merge, and an arm with `of` for each
            candidate), or a sampler (tpe, cmaes, ...) that searches a merge.
        in_flight: trials in flight of samplers.
        sample_ms: mean milliseconds of a sample; at 2 a shard of 512 takes a second.
    """

    workers: int = 1000
    candidates: int = 1000
    tasks: int = 20
    samples: int = 512
    shard_size: int = 512
    arm: str = "grid"
    in_flight: int = 1000
    sample_ms: float = 2.0


def plan_of(case: Case) -> Plan:
    """Return the plan of a case."""
    names = [f"task{i:03}" for i in range(case.tasks)]
    experts = names[:EXPERTS]
    merge: dict[str, Any] = {"merge": "sum", "select": {"maximise": "mean"}}
    grid = [round((i + 1) / (case.candidates + 1), 7) for i in range(case.candidates)]
    if case.arm == "edits":
        each = grid[:: len(experts)]
        arm = {"edit": "each_expert", "scaling": {"function": "linear", "alpha": {"grid": each}, "beta": "1 - alpha"}}
    elif case.arm == "rescaled":
        arm = merge
    elif case.arm == "grid":
        arm = {**merge, "scaling": {"alpha": {"grid": grid}}}
    else:
        search = {"sampler": case.arm, "trials": case.candidates, "in_flight": case.in_flight}
        ranges = {"function": "linear", "alpha": {"range": [0, 1]}, "beta": {"range": [0, 1]}}
        arm = {**merge, "scaling": ranges, "search": search}
    rescaled = grid if case.arm == "rescaled" else []
    others = {f"arm {a}": {**merge, "merge": {"of": "arm"}, "scaling": {"alpha": a}} for a in rescaled}
    spec = {
        "name": "scale",
        "backbone": {"family": "simulated", "model": "simulated"},
        "base": "simulated/base",
        "experts": {e: f"simulated/{e}" for e in experts},
        "tasks": {t: f"simulated/{t}" for t in names},
        "arms": {"arm": arm, **others},
        "shard_size": case.shard_size,
    }
    return make_plan(parse_spec(spec))


def identity_of(case: Case, plan: Plan) -> Identity:
    """Return the identity of what workers would load."""
    return Identity(
        fingerprint="simulated",
        tasks={t: (f"data of {t}", case.samples, case.samples) for t in plan.spec.tasks},
        metrics={t: "accuracy" for t in plan.spec.tasks},
        block_sizes=(10,) * 12,
        outside_size=5,
        checkpoints={"base": "base", **{e: e for e in plan.spec.experts}},
        numerics="simulated",
    )


class Formula:
    """Computes scores from recipes: a smooth accuracy, with outcomes that are paired over candidates."""

    def __init__(self, case: Case, plan: Plan) -> None:
        """Draw each sample's difficulty."""
        rng = np.random.default_rng(0)
        self._hardness = {t: rng.random(case.samples) for t in plan.spec.tasks}
        self._places = {t: i for i, t in enumerate(plan.spec.tasks)}

    def __call__(self, request: EvalRequest, worker: str) -> ShardScore:
        """Answer a request."""
        recipe, place = request.recipe, self._places[request.task]
        alpha = float(recipe.alpha)
        own = 1 if place < EXPERTS and (not recipe.weights or recipe.weights[place]) else 0
        p = 0.4 + 0.3 * own * min(1.0, alpha + recipe.beta) - 0.2 * (alpha - 0.3) ** 2
        outcomes = self._hardness[request.task][request.start : request.stop] < p
        total = float(outcomes.sum())
        return ShardScore(request, Stats(len(outcomes), total, total), outcomes, alpha, (0.01, 1.0), worker)


def from_journal(folder: Path) -> list[Service]:
    """Return the times of shards in a real run, without the short last shards of tasks.

    Raises:
        ValueError: if there are no scores.
    """
    scores = [a for a in read_history(folder).answers.values() if isinstance(a, ShardScore)]
    longest = max((s.stats.n for s in scores), default=0)
    found = [Service(s.seconds[0], s.seconds[1] / longest) for s in scores if s.stats.n == longest]
    if not found:
        raise ValueError(f"{folder}: has no scores in its journal.jsonl")
    return completed(found)


def keep(services: list[Service], path: Path) -> None:
    """Write the times to a file, so that several benchmarks simulate the same workers."""
    path.write_text(json.dumps([[s.rebuild, s.sample] for s in services]), encoding="utf-8")


def from_file(path: Path) -> list[Service]:
    """Read a file of `keep`."""
    return [Service(rebuild, sample) for rebuild, sample in json.loads(path.read_text(encoding="utf-8"))]


def completed(services: list[Service]) -> list[Service]:
    """Give a rebuild's time to each shard; most were measured on a worker that held the candidate already."""
    rebuilds = sorted(s.rebuild for s in services if s.rebuild > 1e-3) or [0.0]
    return [Service(rebuilds[i % len(rebuilds)], s.sample) for i, s in enumerate(services)]


def on_embedded(samples: int = 256, candidates: int = 4) -> list[Service]:
    """Measure one real worker with one thread on the embedded ViT: shards of 8 tasks under a few recipes."""
    from benchmarks.sweep import spec_of  # imports torch, which simulated runs do without
    from pipeline.workers.worker import Worker

    spec = parse_spec({**spec_of(candidates, samples), "shard_size": samples})
    worker = Worker("local", spec)
    found = []
    for group in make_plan(spec).searched:
        for point in group.space.grid():
            recipe = group.recipe(point)
            for task in spec.tasks:
                rebuild, evaluate = worker.evaluate(EvalRequest(recipe, "", task, "val", 0, 0, samples)).seconds
                found.append(Service(rebuild, evaluate / samples))
    return completed(found[len(spec.tasks) :])  # the first candidate warms up


def scaled(services: list[Service], sample_ms: float) -> tuple[list[Service], float]:
    """Scale times to a mean of `sample_ms` a sample; return the factor too."""
    factor = sample_ms / 1000 * len(services) / sum(s.sample for s in services)
    return [Service(s.rebuild * factor, s.sample * factor) for s in services], factor
