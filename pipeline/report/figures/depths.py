"""Figure: lambda over depth of the chosen candidates (equation 1)."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from pipeline.merging.scaling import LayerSizes, coefficients
from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import CandidateRow
from pipeline.report.figures.figure import SMALL_HEIGHT, Figure, MarkStyle, Panel, marks, panel
from pipeline.report.tables.table import NONE, Table, TableCell, lead

#: With more lines, each arm has a small panel of its own, at least this wide.
MANY_LINES, LEAST_WIDTH = 12, 180


def depths(measure: Measure) -> list[Figure]:
    """Return one figure a kind; an arm has one line for each different profile among its experts."""
    titles = {"edit": "Edited experts: λ over depth, as chosen", "merge": "Merges: λ over depth, as chosen"}
    note = (
        "λ multiplies the combined task vector: λ = α + β f(depth) in the residual blocks, α outside them. "
        "One line for each different choice among an arm's experts. Learned coefficients: their mean over the experts."
    )
    if any(arm.has_components for arm in measure.arms):
        note += " Factors of components, which the table of what was chosen has, multiply λ."
    found = {title: [a for a in measure.arms if a.kind == kind] for kind, title in titles.items()}
    figures = []
    for title, arms in found.items():
        lines = [line for arm in arms for line in _lines(measure, arm)]
        small = small_width(lines)
        legend = [] if small else arms
        if lines:
            figures.append(Figure(title, note, depth_panels(lines), legend, _table(measure, arms), small=small))
    return figures


def profile(measure: Measure, candidate: CandidateRow) -> tuple[float, ...] | None:
    """Return lambda outside the blocks, then of each block in order of depth; None if alpha was never resolved.

    If the method learns coefficients, lambda is multiplied by their mean over the experts (figure 5 of the paper).
    """
    if candidate.alpha is None:
        return None
    layers = measure.run.provenance["layers"]
    sizes = LayerSizes(int(layers["outside_size"]), tuple(layers["block_sizes"]))
    found = coefficients(candidate.recipe, sizes, candidate.alpha).all
    learned = list(candidate.note.get("coefficients", {}).values())
    return tuple(np.mean(learned, axis=0) * found) if learned else found


def small_width(lines: Sequence[go.Scatter]) -> int:
    """Return the least width of a panel for each arm if there are many lines, else 0, as `Figure.small`."""
    return LEAST_WIDTH if len(lines) > MANY_LINES else 0


def depth_panels(lines: Sequence[go.Scatter]) -> list[Panel]:
    """Return one panel with all lines; of many, a small panel for each arm, all with the same axis of lambda."""
    ticks = max(1, max(len(line.x) for line in lines) // 8)
    if not small_width(lines):
        return [panel("", lines, "residual block", "λ", xaxis_dtick=ticks)]
    by_arm: dict[str, list[go.Scatter]] = {}
    for line in lines:
        by_arm.setdefault(line.name, []).append(line)
    low, high = min(min(line.y) for line in lines), max(max(line.y) for line in lines)
    margin = 0.06 * (high - low) or 0.05
    layout = {"height": SMALL_HEIGHT, "xaxis_dtick": 2 * ticks, "yaxis_range": (low - margin, high + margin)}
    return [panel(name, found, "", "λ", **layout) for name, found in by_arm.items()]


def _lines(measure: Measure, arm: ArmResult) -> list[go.Scatter]:
    lines: dict[tuple[float, ...], list[str]] = {}
    for group in arm.groups:
        candidate = arm.chosen(group)
        found = profile(measure, candidate) if candidate else None
        if found is not None:
            lines.setdefault(found[1:], []).append(group)
    return [
        depth_line(arm, f"{arm.name} {', '.join(filter(None, groups))}", blocks) for blocks, groups in lines.items()
    ]


def depth_line(arm: ArmResult, name: str, blocks: Sequence[float]) -> go.Scatter:
    """Return the line of lambda over the residual blocks."""
    template = "%{hovertext}<br>block %{x}: λ = %{y:.3f}<extra></extra>"
    return marks(arm, range(1, len(blocks) + 1), blocks, [name] * len(blocks), template, MarkStyle(5, joined=2))


def _table(measure: Measure, arms: Sequence[ArmResult]) -> Table:
    count = len(measure.run.provenance["layers"]["block_sizes"])
    rows = []
    for arm in arms:
        for group in arm.groups:
            candidate = arm.chosen(group)
            found = profile(measure, candidate) if candidate else None
            if found is not None:
                values = [TableCell(f"{value:.3f}") for value in found]
                rows.append((lead(arm), TableCell(group or NONE), *values))
    columns = ("arm", "expert", "outside", *(f"block {i + 1}" for i in range(count)))
    return Table("λ of what was chosen", "Outside: the parameters outside the residual blocks.", columns, tuple(rows))
