"""An inspection as one self-contained HTML page, as JSON, and as Parquet tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.inspection.rows import EXPERTS, PAIRS, expert_rows, pair_rows
from pipeline.inspection.weight_tables import weight_figures, weight_tables
from pipeline.inspection.weights import Weights
from pipeline.records import tables
from pipeline.report.figures.figure import Figure
from pipeline.report.rendering import render
from pipeline.report.tables.table import Table
from tasks.files.atomic import write_whole

PAGE, FILE_NAME = "inspect.html", "inspect.json"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        name: of the spec.
        weights: the measured task vectors.
    """

    name: str
    weights: Weights

    @property
    def facts(self) -> dict[str, Any]:
        """The content of inspect.json."""
        weights = {"rank": self.weights.rank, "experts": expert_rows(self.weights), "pairs": pair_rows(self.weights)}
        return {"name": self.name, "weights": weights}


@dataclass(frozen=True, slots=True)
class _Page:
    name: str
    weights: Weights
    tables: Sequence[Table]
    figures: Sequence[Figure]


def write_inspection(found: Inspection, folder: Path) -> Path:
    """Write page, JSON and tables into a folder, which is created, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    tables.write(folder / "experts.parquet", expert_rows(found.weights), EXPERTS)
    tables.write(folder / "pairs.parquet", pair_rows(found.weights), PAIRS)
    write_whole(folder / FILE_NAME, json.dumps(found.facts, indent=2))
    page = _Page(found.name, found.weights, weight_tables(found.weights), weight_figures(found.weights))
    return write_whole(folder / PAGE, render.html("inspect.html.j2", page=page))
