"""What a run came to, as far as it is compared with other runs: what each arm chose, with its outcomes on test."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.report.data.run import CandidateRow, Run
from search.intervals import Array

#: (arm, role, task): what is compared is a mean over the models of an arm that have the task in that role.
SnapshotKey = tuple[str, str, str]


@dataclass(frozen=True)
class ScoredModel:
    """One chosen model on one task.

    Attributes:
        arm, kind, group: as in candidates.parquet.
        control_of: the arm that this one is a control of, or "".
        recipe_id, recipe: which weights, and how they are made of whatever checkpoints the run has (canonical JSON).
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
    """A finished run, or a baseline made of one.

    Attributes:
        place: where it was read from, for people.
        about: name, spec, started, finished, versions, checkpoints, tasks, numerics and failures of its provenance.
        rows: in the order of the run's tables.
    """

    place: str
    about: Mapping[str, Any]
    rows: tuple[ScoredModel, ...]

    @cached_property
    def cells(self) -> Mapping[SnapshotKey, Mapping[str, ScoredModel]]:
        """What can be compared: (arm, role, task) -> group -> row."""
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
        """Every arm, controls too."""
        return tuple(dict.fromkeys(row.arm for row in self.rows))

    @cached_property
    def plain_arms(self) -> tuple[str, ...]:
        """Every arm but controls."""
        return tuple(dict.fromkeys(row.arm for row in self.rows if not row.control_of))

    @property
    def started(self) -> datetime:
        """When the run was started.

        Raises:
            ValueError: an older version of this program, which did not keep the time, has worked it.
        """
        if "started" not in self.about:
            raise ValueError(f"{self.place}: does not say when it was run: an older version made it; run it anew")
        return datetime.fromisoformat(self.about["started"])

    def mean_N(self, key: SnapshotKey) -> Array:
        """Outcomes of a cell, averaged over its models."""
        mean_N: Array = np.mean([row.outcomes_N for row in self.cells[key].values()], axis=0)
        return mean_N


_ABOUT = ("name", "spec", "started", "finished", "versions", "checkpoints", "tasks", "numerics", "failures")


def snapshot_of(run: Run, place: str) -> Snapshot:
    """What a run came to.

    Raises:
        ValueError: it is not finished, or nothing was scored on test.
    """
    if not run.provenance["complete"]:
        raise ValueError(f"{place}: the run is not finished: `lines run` with the same spec and --out goes on with it")
    rows = tuple(row for c in run.candidates if c.chosen and c.kind != "mask" for row in _rows(run, c))
    if not rows:
        raise ValueError(f"{place}: nothing was scored on test: see its report for what failed")
    return Snapshot(place, {key: run.provenance[key] for key in _ABOUT if key in run.provenance}, rows)


def sample_means(outcomes: npt.NDArray[Any], draws: int) -> Array:
    """(N,) outcomes of N * draws: completions of a prompt depend on each other, so their mean is one sample.

    Rounded to float32, which is what a baseline's file holds: a run and its own baseline must not differ.
    """
    mean_N: Array = outcomes.astype(np.float64).reshape(-1, draws).mean(axis=1)
    return mean_N.astype(np.float32).astype(np.float64)


def _rows(run: Run, candidate: CandidateRow) -> list[ScoredModel]:
    draws = (run.provenance["spec"].get("generation") or {}).get("samples", 1)
    found = []
    for (task, split), score in run.scored(candidate).items():
        outcomes = run.outcomes(candidate, task, split)
        if split != "test" or outcomes is None:
            continue
        mean_N = sample_means(outcomes, draws)
        who = (candidate.arm, candidate.kind, candidate.group, candidate.control_of)
        what = (candidate.recipe_id, candidate.recipe.canonical().decode())
        found.append(ScoredModel(*who, *what, task, score.role, score.metric, mean_N))
    return found
