"""The snapshot of a run for comparisons with other runs: the choices of each arm, with their outcomes on test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.plan.groups import FINE_TUNED
from pipeline.report.data.run import CandidateRow, Run
from search.intervals import Array, sample_means

#: (arm, role, task): a comparison is of the mean over the models of an arm that have the task in this role.
SnapshotKey = tuple[str, str, str]


@dataclass(frozen=True)
class ScoredModel:
    """One chosen model on one task.

    Attributes:
        arm, kind, group: as in candidates.parquet.
        control_of: the arm that this one is a control of, or "".
        recipe_id, recipe: the id of the weights, and the recipe as canonical JSON, which names no checkpoints.
        task, role, metric: as in scores.parquet.
        outcomes_N: one for each independent sample, in the data set's order.
    """

    arm: str
    kind: str
    group: str
    control_of: str
    recipe_id: str
    recipe: str
    task: str
    role: str
    metric: str
    outcomes_N: Array


@dataclass(frozen=True)
class Snapshot:
    """A finished run, or a baseline made from one.

    Attributes:
        place: the folder, URL or file that it was read from.
        about: name, spec, started, finished, versions, checkpoints, tasks, reference_tasks, numerics and failures of
            its provenance.
        rows: in the order of the run's tables.
    """

    place: str
    about: Mapping[str, Any]
    rows: tuple[ScoredModel, ...]

    @cached_property
    def cells(self) -> Mapping[SnapshotKey, Mapping[str, ScoredModel]]:
        """(arm, role, task) -> group -> row."""
        found: dict[SnapshotKey, dict[str, ScoredModel]] = {}
        for row in self.rows:
            found.setdefault((row.arm, row.role, row.task), {})[row.group] = row
        return found

    @cached_property
    def tasks(self) -> Mapping[str, tuple[str, int]]:
        """Task -> fingerprint, number of test samples."""
        return {task["name"]: (task["fingerprint"], task["n"]["test"]) for task in self.about["tasks"]}

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Every arm, including controls."""
        return tuple(dict.fromkeys(row.arm for row in self.rows))

    @cached_property
    def plain_arms(self) -> tuple[str, ...]:
        """Every arm except controls."""
        return tuple(dict.fromkeys(row.arm for row in self.rows if not row.control_of))

    @property
    def narrowed(self) -> Mapping[str, Sequence[str]]:
        """Expert -> its tasks, for the references that were not scored on all, as nothing in the run uses the others.

        Older versions scored every reference on all tasks.
        """
        found: Mapping[str, Sequence[str]] = self.about.get("reference_tasks", {})
        return found

    def used_by(self, other: "Snapshot") -> "Snapshot":
        """Return the snapshot without the scores of references that the other run did not need, and does not have."""
        groups = {(key, group) for key, models in other.cells.items() for group in models}
        rows = [
            row
            for row in self.rows
            if row.arm != FINE_TUNED
            or row.task in other.narrowed.get(row.group, (row.task,))
            or ((row.arm, row.role, row.task), row.group) in groups
        ]
        return replace(self, rows=tuple(rows))

    @property
    def started(self) -> datetime:
        """The start of the run.

        Raises:
            ValueError: if the run was made by an older version of this program, which did not record it.
        """
        if "started" not in self.about:
            raise ValueError(f"{self.place}: has no start time: an older version of this program made it; run it again")
        return datetime.fromisoformat(self.about["started"])

    def metric(self, key: SnapshotKey) -> str:
        """Return the metric of a cell."""
        return next(iter(self.cells[key].values())).metric

    def mean_N(self, key: SnapshotKey) -> Array:
        """Return the outcomes of a cell, averaged over its models."""
        mean_N: Array = np.mean([row.outcomes_N for row in self.cells[key].values()], axis=0)
        return mean_N


_ABOUT = (
    *("name", "spec", "started", "finished", "versions", "checkpoints"),
    *("tasks", "reference_tasks", "numerics", "failures"),
)


def snapshot_of(run: Run, place: str) -> Snapshot:
    """Return the snapshot of a run.

    Raises:
        ValueError: if the run is not finished, or has no scores on test.
    """
    if not run.provenance["complete"]:
        raise ValueError(f"{place}: the run is not finished: `lines run` with the same spec and --out resumes it")
    rows = tuple(row for c in run.candidates if c.chosen and c.kind != "mask" for row in _rows(run, c))
    if not rows:
        raise ValueError(f"{place}: no scores on test: its report shows what failed")
    return Snapshot(place, {key: run.provenance[key] for key in _ABOUT if key in run.provenance}, rows)


def baseline_samples(outcomes: npt.ArrayLike, draws: int) -> Array:
    """Return `sample_means` in float32, the precision of a baseline's file: a run must not differ from its own."""
    return sample_means(outcomes, draws).astype(np.float32).astype(np.float64)


def _rows(run: Run, candidate: CandidateRow) -> list[ScoredModel]:
    found = []
    for (task, split), score in run.scored(candidate).items():
        outcomes = run.outcomes(candidate, task, split)
        if split != "test" or outcomes is None:
            continue
        mean_N = baseline_samples(outcomes, run.draws)
        who = (candidate.arm, candidate.kind, candidate.group, candidate.control_of)
        what = (candidate.recipe_id, candidate.recipe.canonical().decode())
        found.append(ScoredModel(*who, *what, task, score.role, score.metric, mean_N))
    return found
