"""Figure: the objective of each candidate over each searched dimension, if a curve cannot be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.data.arms import ArmResult, distinct
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import describe, shared_points
from pipeline.report.data.run import CandidateRow
from pipeline.report.figures.figure import Figure, MarkStyle, Panel, marks, panel, safe
from pipeline.report.tables.table import NONE, Table, TableCell, lead

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
    """Return one figure a kind, with a panel for each dimension and objective; none if all its arms have curves."""
    titles = {"edit": "Edited experts: the search, dimension by dimension", "merge": "Merges: the search, by dimension"}
    figures = []
    for kind, title in titles.items():
        arms = distinct(a for a in measure.arms if a.kind == kind and not _has_curve(a) and not _is_greedy(a))
        panels = _panels(measure, arms)
        note = (
            "Objectives on validation, as the search saw them. Each mark is a candidate that was scored in full, at "
            "its value of one dimension, whatever its values of the others; the ring is what was chosen."
        )
        figures += [Figure(title, note, panels, arms, _table(measure, title, arms))] if panels else []
    return figures


def _has_curve(arm: ArmResult) -> bool:
    """Whether the arm searched nothing, or one number at points that every expert shares."""
    points = shared_points(arm)
    scored = [c for c in arm.candidates if c.objectives is not None]
    return all(not c.point for c in scored) or sum(p.dimension is not None for p in points) > 1


def _is_greedy(arm: ArmResult) -> bool:
    """Whether each expert is a dimension of 0 and 1, as in a greedy soup: none of these has a curve."""
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
    return [_panel(objective, dimension, spots) for (objective, dimension), spots in found.items()]


def _panel(objective: str, dimension: str, spots: Sequence[Mark]) -> Panel:
    arms = {spot.arm.name: spot.arm for spot in spots}
    traces = [_trace(arm, [s for s in spots if s.arm.name == name]) for name, arm in arms.items()]
    values = [s.x for s in spots if isinstance(s.x, int | float)]
    # More than two orders of magnitude come from a range with `log: true`.
    log = len(values) == len(spots) and min(values) > 0 and max(values) > 100 * min(values)
    kind = "log" if log else "-" if values else "category"
    return panel(f"{objective} over {dimension}", traces, dimension, objective, height=280, xaxis_type=kind)


def _trace(arm: ArmResult, spots: Sequence[Mark]) -> object:
    x = (spot.x if isinstance(spot.x, int | float) else safe(str(spot.x)) for spot in spots)
    hover = [f"{arm.name} {s.candidate.group}\n{describe(s.candidate.point)}" for s in spots]
    style = MarkStyle(7, [spot.candidate.chosen for spot in spots])
    found = marks(arm, x, (round(s.y, 5) for s in spots), hover, "%{hovertext}<br>%{y:.4g}<extra></extra>", style)
    return found.update(opacity=0.8)


def _table(measure: Measure, title: str, arms: Sequence[ArmResult]) -> Table:
    """The best candidates of each arm and expert by the sum of their objectives, as in the choice."""
    rows = []
    for arm in arms:
        for group in arm.groups:
            scored = [(c, c.objectives) for c in arm.candidates if c.group == group and c.objectives is not None]
            for candidate, values in sorted(scored, key=lambda pair: -sum(pair[1]))[:LISTED]:
                texts = (group or NONE, describe(candidate.point), ", ".join(f"{value:.4f}" for value in values))
                rows.append((lead(arm), *map(TableCell, texts)))
    columns = ("arm", "expert", "point", "objective")
    return Table(
        title, f"The best {LISTED} of each arm and expert, of those that were scored in full.", columns, tuple(rows)
    )
