"""An inspection as one self-contained HTML page, as JSON, and as Parquet tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.inspection.gate_figure import gate_figure
from pipeline.inspection.rows import EXPERTS, GATE, PAIRS, expert_rows, gate_rows, pair_rows
from pipeline.inspection.weight_tables import weight_figures, weight_tables
from pipeline.inspection.weights import Weights
from pipeline.records import tables
from pipeline.records.gate import FILE_NAME, Gate
from pipeline.report.figures.figure import Figure
from pipeline.report.rendering import render
from pipeline.report.tables.gate import gate_note, gate_sentences, gate_tables
from pipeline.report.tables.table import Table
from tasks.files.atomic import write_whole

PAGE = "inspect.html"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        name: of the spec.
        weights: the measured task vectors.
        gate: what edits lose without a third of the blocks; None if nothing was scored.
    """

    name: str
    weights: Weights
    gate: Gate | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The content of inspect.json."""
        weights = {"rank": self.weights.rank, "experts": expert_rows(self.weights), "pairs": pair_rows(self.weights)}
        return {"name": self.name, "weights": weights, **(_gate_facts(self.gate) if self.gate else {})}


def _gate_facts(gate: Gate) -> dict[str, Any]:
    """Return the gate as the report of a run reads it, and what it says."""
    said = zip(gate.edits, gate_sentences(gate.edits), strict=True)
    predicted = [
        {"kind": e.kind, "name": e.name, "word": e.predicted.word, "why": e.predicted.why, "sentence": text}
        for e, text in said
    ]
    return {"gate": gate.to_json(), "foretold": predicted}  # programs read this key since an earlier version


@dataclass(frozen=True, slots=True)
class _Page:
    name: str
    weights: Weights
    tables: Sequence[Table]
    figures: Sequence[Figure]
    note: str = ""
    sentences: Sequence[str] = ()
    gate: Sequence[Table] = ()
    losses: Sequence[Figure] = ()


def write_inspection(found: Inspection, folder: Path) -> Path:
    """Write page, JSON and tables into a folder, which is created, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    tables.write(folder / "experts.parquet", expert_rows(found.weights), EXPERTS)
    tables.write(folder / "pairs.parquet", pair_rows(found.weights), PAIRS)
    write_whole(folder / FILE_NAME, json.dumps(found.facts, indent=2))
    page = _Page(found.name, found.weights, weight_tables(found.weights), weight_figures(found.weights))
    if found.gate:
        tables.write(folder / "gate.parquet", gate_rows(found.gate), GATE)
        page = replace(
            page,
            note=gate_note(),
            sentences=gate_sentences(found.gate.edits),
            gate=gate_tables(found.gate.edits),
            losses=[gate_figure(found.gate.edits)],
        )
    return write_whole(folder / PAGE, render.html("inspect.html.j2", page=page))
