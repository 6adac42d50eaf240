"""Figure: lambda over depth of what was chosen (equation 1)."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from pipeline.merging.scaling import LayerSizes, coefficients
from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import CandidateRow
from pipeline.report.figures.figure import Figure, Panel, panel, safe
from pipeline.report.tables.table import Table, TableCell


def depths(measure: Measure) -> list[Figure]:
    """One figure a kind; each arm's line is drawn once for each different profile among its experts."""
    titles = {"edit": "Edited experts: λ over depth, as chosen", "merge": "Merges: λ over depth, as chosen"}
    note = (
        "λ multiplies the combined task vector: λ = α + β f(depth) in the residual blocks, α outside them. "
        "One line for each different choice of an arm's experts. Of learned coefficients: their mean over the experts."
    )
    found = {title: [a for a in measure.arms if a.kind == kind] for kind, title in titles.items()}
    panels = {title: _panel(measure, arms) for title, arms in found.items()}
    return [
        Figure(title, note, [panels[title]], arms, _table(measure, arms))
        for title, arms in found.items()
        if panels[title].figure.data
    ]


def profile(measure: Measure, candidate: CandidateRow) -> tuple[float, ...] | None:
    """Lambda outside the blocks and then of each block in order of depth, or None where alpha was never resolved.

    Of a method that learns coefficients, it is multiplied by their mean over the experts (figure 5 of the paper).
    """
    if candidate.alpha is None:
        return None
    layers = measure.run.provenance["layers"]
    sizes = LayerSizes(int(layers["outside_size"]), tuple(layers["block_sizes"]))
    found = coefficients(candidate.recipe, sizes, candidate.alpha).all
    learned = list(candidate.note.get("coefficients", {}).values())
    return tuple(np.mean(learned, axis=0) * found) if learned else found


def _panel(measure: Measure, arms: Sequence[ArmResult]) -> Panel:
    traces = [trace for arm in arms for trace in _traces(measure, arm)]
    return panel("", traces, "residual block", "λ", xaxis_dtick=block_ticks(measure))


def block_ticks(measure: Measure) -> int:
    """How many blocks lie between two ticks of an axis."""
    return max(1, len(measure.run.provenance["layers"]["block_sizes"]) // 8)


def _traces(measure: Measure, arm: ArmResult) -> list[go.Scatter]:
    lines: dict[tuple[float, ...], list[str]] = {}
    for group in arm.groups:
        candidate = arm.chosen(group)
        found = profile(measure, candidate) if candidate else None
        if found is not None:
            lines.setdefault(found[1:], []).append(group)
    return [
        go.Scatter(
            x=list(range(1, len(blocks) + 1)),
            y=list(blocks),
            mode="lines+markers",
            line={"color": arm.colour, "width": 2, "dash": arm.dash},
            marker={"color": arm.colour, "size": 5, "symbol": arm.symbol},
            hovertext=[safe(f"{arm.name} {', '.join(filter(None, groups))}")] * len(blocks),
            hovertemplate="%{hovertext}<br>block %{x}: λ = %{y:.3f}<extra></extra>",
            name=arm.name,
        )
        for blocks, groups in lines.items()
    ]


def _table(measure: Measure, arms: Sequence[ArmResult]) -> Table:
    count = len(measure.run.provenance["layers"]["block_sizes"])
    rows = []
    for arm in arms:
        for group in arm.groups:
            candidate = arm.chosen(group)
            found = profile(measure, candidate) if candidate else None
            if found is not None:
                values = [TableCell(f"{value:.3f}") for value in found]
                rows.append((TableCell(arm.name, tone="lead", colour=arm.colour), TableCell(group or "–"), *values))
    columns = ("arm", "expert", "outside", *(f"block {i + 1}" for i in range(count)))
    return Table("λ of what was chosen", "Outside: parameters outside the residual blocks.", columns, tuple(rows))
