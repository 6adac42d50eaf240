"""A run folder, read once: candidates, scores, per-sample outcomes and provenance."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.recipe import Recipe, tuples
from pipeline.records import tables
from pipeline.records.provenance_file import FILE_NAME, read_provenance
from search.intervals import linearised_ratio
from tasks.metrics import lower_is_better

Outcomes = npt.NDArray[np.float32] | npt.NDArray[np.float64]
PRE_TRAINED = "pre-trained"
#: End of the name of a role whose tasks are measured in bits per byte.
BITS = " (bits per byte)"


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One row of candidates.parquet, with its recipe."""

    arm: str
    kind: str
    group: str
    number: int
    recipe_id: str
    recipe: Recipe
    alpha: float | None
    alpha_auto: bool
    point: Mapping[str, object]
    control_of: str
    control: str
    failure: str
    stopped: bool
    objectives: tuple[float, ...] | None
    chosen: bool
    note: Mapping[str, Any]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "CandidateRow":
        """Return the candidate of a row of `pipeline.records.tables.CANDIDATES`."""
        alpha = "auto" if row["alpha_auto"] and row["alpha"] is None else row["alpha"]
        params = json.loads(row["params"])
        then = params.pop("then", [])
        recipe = Recipe.make(
            row["method"],
            row["scaling"],
            0 if alpha is None else alpha,
            row["beta"],
            tuple(row["weights"]),
            tuples(params),
        ).followed_by((name, tuples(given)) for name, given in then)
        same = ("arm", "kind", "group", "number", "recipe_id", "alpha", "alpha_auto", "control_of", "control", "chosen")
        return cls(
            recipe=recipe,
            point=json.loads(row["point"]),
            failure=row["failure"] if row["state"] == "failed" else "",
            stopped=row["state"] == "stopped",
            objectives=None if row["objectives"] is None else tuple(row["objectives"]),
            note=json.loads(row["note"] or "{}"),
            **{name: row[name] for name in same},
        )


@dataclass(frozen=True, slots=True)
class Score:
    """The columns of a row of scores.parquet that the report needs."""

    role: str
    metric: str
    value: float
    normalised: float | None

    @property
    def shown_role(self) -> str:
        """The role whose means it counts in: a role's bits per byte have means of their own."""
        return f"{self.role}{BITS}" if lower_is_better(self.metric) else self.role


@dataclass(frozen=True)
class Run:
    """A finished or interrupted run.

    Attributes:
        folder: the run folder.
        provenance: the content of provenance.json.
        candidates: in the order of the table.
        scores: (arm, group, number) -> (task, split) -> score.
        samples: task -> (recipe id, split) -> outcomes of shape (n,); of a ratio of sums, `linearised_ratio`.
        spared: arm -> validation samples that needed no score, as candidates were stopped, and samples of all its
            candidates; {} if none was stopped.
    """

    folder: Path
    provenance: Mapping[str, Any]
    candidates: tuple[CandidateRow, ...]
    scores: Mapping[tuple[str, str, int], Mapping[tuple[str, str], Score]]
    samples: Mapping[str, Mapping[tuple[str, str], Outcomes]] = field(repr=False)
    spared: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read the tables of a run folder.

        Raises:
            ValueError: if a file is missing or has another schema version.
        """
        provenance = _read_provenance(folder / FILE_NAME)
        rows = _rows(folder / "candidates.parquet", tables.CANDIDATES)
        candidates = tuple(CandidateRow.from_row(row) for row in rows)
        scores: dict[tuple[str, str, int], dict[tuple[str, str], Score]] = {}
        for row in _rows(folder / "scores.parquet", tables.SCORES):
            score = Score(row["role"], row["metric"], row["value"], row["normalised"])
            scores.setdefault((row["arm"], row["group"], row["number"]), {})[row["task"], row["split"]] = score
        names = sorted({task for by_task in scores.values() for task, _ in by_task})
        samples = {name: _read_samples(folder, name) for name in names}
        return cls(folder, provenance, candidates, scores, samples, _spared(folder, candidates))

    @property
    def name(self) -> str:
        """The run's name in its spec."""
        return str(self.provenance["name"])

    @cached_property
    def metrics(self) -> Mapping[str, str]:
        """Task -> its metric, of the tasks that were scored."""
        return {task: s.metric for by_task in self.scores.values() for (task, _), s in by_task.items()}

    @cached_property
    def draws(self) -> int:
        """Completions of each prompt, side by side in the outcomes. They are correlated and count as one sample."""
        return int((self.provenance["spec"].get("generation") or {}).get("samples", 1))

    @cached_property
    def percent(self) -> bool:
        """Whether every metric is an accuracy, so that values are shown as per cent; bits per byte have means apart."""
        return all(metric == "accuracy" for metric in self.metrics.values() if not lower_is_better(metric))

    @cached_property
    def task_names(self) -> tuple[str, ...]:
        """The tasks in the order of the spec."""
        return tuple(str(task["name"]) for task in self.provenance["tasks"])

    def scored(self, candidate: CandidateRow) -> Mapping[tuple[str, str], Score]:
        """Return (task, split) -> score of one candidate, for the splits that were scored in full."""
        return self.scores.get((candidate.arm, candidate.group, candidate.number), {})

    def outcomes(self, candidate: CandidateRow, task: str, split: str) -> Outcomes | None:
        """Return per-sample outcomes (n,), or None if the candidate was not scored."""
        return self.samples.get(task, {}).get((candidate.recipe_id, split))


def _read_provenance(path: Path) -> Mapping[str, Any]:
    _check_exists(path)
    content = read_provenance(path)
    version = content.get("schema_version")
    if version != tables.SCHEMA_VERSION:
        raise ValueError(f"{path}: schema version {version}, this program reads {tables.SCHEMA_VERSION}")
    return content


def _rows(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    _check_exists(path)
    rows: list[dict[str, Any]] = tables.read(path, schema).to_pylist()
    return rows


def _read_samples(folder: Path, task: str) -> dict[tuple[str, str], Outcomes]:
    path = folder / "samples" / f"{task}.parquet"
    _check_exists(path)
    table = tables.read(path, tables.SAMPLES).combine_chunks()
    # `values` of a list scalar is a slice of one buffer: a column of a million outcomes never becomes Python floats.
    # Arrow's own `to_numpy` would import pandas.
    values: list[Any] = [np.from_dlpack(scalar.values) for scalar in table["outcomes"]]
    keys = zip(table["recipe_id"].to_pylist(), table["split"].to_pylist(), strict=True)
    samples = dict(zip(keys, values, strict=True))
    if not (path := folder / "sizes" / f"{task}.parquet").is_file():
        return samples
    sizes = {row["split"]: row["sizes"] for row in tables.read(path, tables.SIZES).to_pylist()}
    return {key: linearised_ratio(outcomes, sizes[key[1]]) for key, outcomes in samples.items()}


def _spared(folder: Path, candidates: Sequence[CandidateRow]) -> dict[str, tuple[int, int]]:
    path = folder / "stopped.parquet"
    if not path.is_file():
        return {}
    counts = Counter((c.arm, c.group) for c in candidates if not c.failure)
    spared: dict[str, int] = {}
    sizes: dict[tuple[str, str], int] = {}
    for row in tables.read(path, tables.STOPPED).to_pylist():
        spared[row["arm"]] = spared.get(row["arm"], 0) + row["samples"] - row["seen"]
        sizes[row["arm"], row["group"]] = row["samples"]
    whole = {arm: sum(counts[key] * size for key, size in sizes.items() if key[0] == arm) for arm in spared}
    return {arm: (count, whole[arm]) for arm, count in spared.items()}


def _check_exists(path: Path) -> None:
    if not path.exists():
        found = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise ValueError(f"{path}: no such file: this is not a finished run; the folder contains {found or 'nothing'}")
