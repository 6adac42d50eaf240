"""The exhibits of a run's report, and what their rows and lines show."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.data.estimates import Measure
from pipeline.report.exhibits import exhibits
from pipeline.report.figures.figure import Figure
from pipeline.report.tables.table import Table, decimal


def drawn(folder: Path) -> list[Table | Figure]:
    return exhibits(Measure.read(folder))


def row(table: Table, name: str) -> tuple[Any, ...]:
    return next(entries[1:] for entries in table.rows if entries[0].text == name)


def trace(figure: Figure, panel: int, name: str) -> Any:
    return next(t for t in figure.panels[panel].figure.data if t.name == name and getattr(t, "fill", None) is None)


def percent(values: Any) -> str:
    return decimal(100 * float(np.mean(list(values))), 1)
