"""A run of the real driver over the toy evaluator with every kind of exhibit, and a slow reader of its tables."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from toy import IDENTITY, ToyEvaluator, toy_spec

from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.records import tables
from pipeline.run.run import run
from search.intervals import TaskOutcomes, paired_difference

GRID = {"grid": [0.0, 0.25, "...", 1.0]}
SHIFTED = ("cats_ood", "cats_ood2")
ARMS: dict[str, Any] = {
    "LiNeS": {"edit": "each_expert", "scaling": {"function": "linear", "alpha": GRID, "beta": "1 - alpha"}},
    "wise": {"edit": "each_expert", "scaling": {"scale": GRID}, "test": "every"},
    "wise lines": {
        "edit": "each_expert",
        "scaling": {"function": "linear", "alpha": 0.5, "beta": 0.5, "scale": GRID},
        "test": "every",
    },
    "ta": {"merge": "sum", "scaling": {"alpha": GRID}},
    "ta lines": {"merge": "sum", "scaling": {"function": "linear", "alpha": "auto", "beta": GRID}},
    "ta 2d": {
        "merge": "sum",
        "scaling": {"function": "linear", "alpha": {"grid": [0.0, 0.5, 1.0]}, "beta": {"grid": [0.0, 0.2]}},
    },
    "pair": {"merge": "sum", "experts": ["cats", "dogs"], "scaling": {"alpha": GRID}},
    "pair lines": {
        "merge": "sum",
        "experts": ["cats", "dogs"],
        "scaling": {"function": "linear", "alpha": 0.5, "beta": GRID},
    },
}
EXHIBITS: dict[str, Any] = {
    "Table 1": {
        "kind": "table",
        "columns": {"Target": "target", "Control": "control", "Control, normalised": "control_normalised"},
        "rows": {"Pre-trained": "pre-trained", "Fine-tuned": "fine-tuned", "+ LiNeS": "LiNeS"},
        "against": {"+ LiNeS": "Fine-tuned"},
        "paper": {"Pre-trained": [48.3, 48.3, None], "Fine-tuned": [90.5, 38.0, None]},
        "note": "A note.",
    },
    "Table 2": {
        "kind": "table",
        "columns": {"3 tasks": "accuracy", "2 tasks": "accuracy", "beta": "beta"},
        "rows": {
            "Zero-shot": ["pre-trained", "pre-trained", None],
            "Fine-tuned": ["fine-tuned", "fine-tuned", None],
            "Task Arithmetic": ["ta", "pair", {"arm": "ta lines", "metric": "alpha"}],
            "+ LiNeS": ["ta lines", "pair lines", "ta lines"],
        },
        "against": {"+ LiNeS": "Task Arithmetic"},
    },
    "Figure 1": {
        "kind": "curve",
        "metrics": ["target", "control"],
        "arms": {"shallow": "LiNeS", "deep": "LiNeS, reversed", "as it is": "fine-tuned"},
        "x_title": "gamma",
    },
    "Figure 2": {"kind": "scatter", "arms": ["pre-trained", "fine-tuned", "LiNeS"]},
    "Figure 3": {"kind": "path", "arms": {"WiSE-FT": "wise", "+ LiNeS": "wise lines", "zero-shot": "pre-trained"}},
    "Figure 5": {"kind": "coefficients", "arms": ["ta", "ta lines", "LiNeS"]},
    "Figure 6": {"kind": "scatter", "arms": ["fine-tuned", "LiNeS"], "labels": True},
    "Figure 9": {"kind": "path", "arms": ["wise", "wise lines"], "panels": "experts"},
    "Figure 10": {"kind": "bars", "arms": {"theta0": "pre-trained", "FT": "fine-tuned", "TA": "ta"}},
    "Figure 14": {"kind": "curve", "arms": ["ta", "ta lines"], "x_title": "scale value"},
    "Figure 15": {"kind": "heatmap", "arms": "ta 2d"},
}


class Shifting(ToyEvaluator):
    """A toy evaluator with two shifted sets."""

    def info(self) -> Any:
        return dataclasses.replace(super().info(), tasks=dict(identity().tasks))


def identity() -> Any:
    """The toy's identity, with a second shifted set."""
    second = {"cats_ood2": ("toy-cats_ood2", *IDENTITY.tasks["cats_ood"][1:])}
    return dataclasses.replace(
        IDENTITY, tasks={**IDENTITY.tasks, **second}, metrics={**IDENTITY.metrics, "cats_ood2": "accuracy"}
    )


def exhibit_spec(**changes: Any) -> Any:
    """Return the spec of `write_run`."""
    return toy_spec(**{"arms": ARMS, "exhibits": EXHIBITS, "ood": {t: f"toy/{t}" for t in SHIFTED}, **changes})


def write_run(folder: Path, **changes: Any) -> Path:
    """Execute the whole run."""
    run(make_plan(exhibit_spec(**changes)), identity(), folder, lambda: LocalPool(Shifting()), None)
    return folder


@dataclasses.dataclass(frozen=True)
class Oracle:
    """Reads the tables of a run row by row."""

    folder: Path

    def rows(self, table: str) -> list[dict[str, Any]]:
        schema = {"candidates": tables.CANDIDATES, "scores": tables.SCORES}[table]
        found: list[dict[str, Any]] = tables.read(self.folder / f"{table}.parquet", schema).to_pylist()
        return found

    def chosen(self, arm: str) -> dict[str, dict[str, Any]]:
        """Return group -> its chosen candidate."""
        return {row["group"]: row for row in self.rows("candidates") if row["arm"] == arm and row["chosen"]}

    def values(self, arm: str, split: str, number: int | None = None, field: str = "value") -> dict[Any, float]:
        """Return (group, task) -> score of the chosen candidate, or of the one with this number."""
        numbers = {g: row["number"] for g, row in self.chosen(arm).items()}
        return {
            (row["group"], row["task"]): row[field]
            for row in self.rows("scores")
            if row["arm"] == arm
            and row["split"] == split
            and row["number"] == (numbers.get(row["group"]) if number is None else number)
        }

    def outcomes(self, recipe_id: str, task: str, split: str) -> np.ndarray:
        table = tables.read(self.folder / "samples" / f"{task}.parquet", tables.SAMPLES).to_pylist()
        return np.array(next(r["outcomes"] for r in table if (r["recipe_id"], r["split"]) == (recipe_id, split)))

    def difference(self, left: Mapping[Any, str], right: Mapping[Any, str]) -> Any:
        """Return the paired difference of two mappings from (group, task) to recipe id, over the same keys."""
        pairs = [
            TaskOutcomes(
                task, self.outcomes(left[group, task], task, "test"), self.outcomes(right[group, task], task, "test")
            )
            for group, task in left
        ]
        return paired_difference(pairs)
