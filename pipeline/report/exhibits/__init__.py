"""The exhibits of a spec: the tables and figures at the beginning of its report."""

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import Run
from pipeline.report.exhibits import bars, coefficients, curve, heatmap, path, scatter
from pipeline.report.exhibits.table import table
from pipeline.report.figures.figure import Figure
from pipeline.report.tables.table import Table
from pipeline.spec.exhibits import Exhibits

_EXHIBITS: TypeAdapter[Any] = TypeAdapter(Exhibits)
_MAKE: dict[str, Callable[[str, Any, Measure], Table | Figure]] = {
    "table": table,
    "curve": curve.figure,
    "scatter": scatter.figure,
    "path": path.figure,
    "coefficients": coefficients.figure,
    "heatmap": heatmap.figure,
    "bars": bars.figure,
}


def exhibits(measure: Measure) -> list[Table | Figure]:
    """Return every exhibit of the run's spec, in its order."""
    return [_MAKE[exhibit.kind](title, exhibit, measure) for title, exhibit in asked(measure.run).items()]


def asked(run: Run) -> Exhibits:
    """Return the exhibits as the run's spec has them."""
    found: Exhibits = _EXHIBITS.validate_python(run.provenance["spec"].get("exhibits", {}))
    return found
