"""Figure: what each candidate gained over each searched dimension, where a curve cannot be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import describe, shared_points
from pipeline.report.data.run import CandidateRow
from pipeline.report.figures.figure import Figure, Panel, panel, safe
from pipeline.report.tables.table import NONE, Table, TableCell

#: Candidates listed for each arm and expert.
LISTED = 5


@dataclass(frozen=True, slots=True)
class Mark:
    """One candidate in one panel."""

    arm: ArmResult
    candidate: CandidateRow
    x: object
    y: float


def searched(measure: Measure) -> list[Figure]:
    """One figure a kind, a panel for each dimension and objective; kinds whose arms all have curves are left out."""
    titles = {"edit": "Edited experts: the search, dimension by dimension", "merge": "Merges: the search, by dimension"}
    figures = []
    for kind, title in titles.items():
        arms = [a for a in measure.arms if a.kind == kind and not _has_curve(a) and not _is_greedy(a)]
        panels = _panels(measure, arms)
        note = (
            "Objectives on validation, as the search saw them; each mark is a candidate at its value of one dimension, "
            "whatever the others were; the ring is what was chosen."
        )
        figures += [Figure(title, note, panels, arms, _table(measure, title, arms))] if panels else []
    return figures


def _has_curve(arm: ArmResult) -> bool:
    """Whether the arm searched nothing, or one number at points that every expert shares."""
    points = shared_points(arm)
    scored = [c for c in arm.candidates if c.objectives is not None]
    return all(not c.point for c in scored) or sum(p.dimension is not None for p in points) > 1


def _is_greedy(arm: ArmResult) -> bool:
    """Whether experts were only taken or left, as in a greedy soup: a dimension for each, of which none has a curve."""
    points = [c.point for c in arm.candidates]
    return any(points) and all(name.startswith("weights.") and v in (0, 1) for p in points for name, v in p.items())


def _panels(measure: Measure, arms: Sequence[ArmResult]) -> list[Panel]:
    found: dict[tuple[str, str], list[Mark]] = {}
    for arm in arms:
        names = measure.run.provenance["objectives"][arm.name]
        for candidate in arm.candidates:
            for objective, y in zip(names, candidate.objectives or (), strict=False):
                for dimension, x in candidate.point.items():
                    found.setdefault((objective, dimension), []).append(Mark(arm, candidate, x, y))
    return [_panel(objective, dimension, marks) for (objective, dimension), marks in found.items()]


def _panel(objective: str, dimension: str, marks: Sequence[Mark]) -> Panel:
    arms = {mark.arm.name: mark.arm for mark in marks}
    traces = [_trace(arm, [m for m in marks if m.arm.name == name]) for name, arm in arms.items()]
    values = [m.x for m in marks if isinstance(m.x, int | float)]
    # Over two orders of magnitude there is a range of `log: true` behind it.
    log = len(values) == len(marks) and min(values) > 0 and max(values) > 100 * min(values)
    kind = "log" if log else "-" if values else "category"
    return panel(f"{objective} over {dimension}", traces, dimension, objective, height=280, xaxis_type=kind)


def _trace(arm: ArmResult, marks: Sequence[Mark]) -> go.Scatter:
    chosen = [mark.candidate.chosen for mark in marks]
    return go.Scatter(
        x=[mark.x if isinstance(mark.x, int | float) else safe(str(mark.x)) for mark in marks],
        y=[round(mark.y, 5) for mark in marks],
        mode="markers",
        opacity=0.8,
        marker={
            "color": arm.colour,
            "size": [14 if c else 7 for c in chosen],
            "symbol": ["circle-open" if c else arm.symbol for c in chosen],
            "line": {"width": [2.4 if c else 0 for c in chosen]},
        },
        hovertext=[safe(f"{arm.name} {m.candidate.group}<br>{describe(m.candidate.point)}") for m in marks],
        hovertemplate="%{hovertext}<br>%{y:.4g}<extra></extra>",
        name=arm.name,
    )


def _table(measure: Measure, title: str, arms: Sequence[ArmResult]) -> Table:
    """The best candidates of each arm and expert by the sum of their objectives, which is what the choice goes by."""
    rows = []
    for arm in arms:
        for group in arm.groups:
            scored = [(c, c.objectives) for c in arm.candidates if c.group == group and c.objectives is not None]
            for candidate, values in sorted(scored, key=lambda pair: -sum(pair[1]))[:LISTED]:
                lead = TableCell(arm.name, tone="lead", colour=arm.colour)
                shown = ", ".join(f"{value:.4f}" for value in values)
                rows.append((lead, TableCell(group or NONE), TableCell(describe(candidate.point)), TableCell(shown)))
    columns = ("arm", "expert", "point", "objective")
    return Table(title, f"The best {LISTED} of each arm and expert.", columns, tuple(rows))
