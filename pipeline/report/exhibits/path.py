"""Exhibit: accuracy on shifted sets against target accuracy, along each arm's candidates (WiSE-FT)."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import GroupTask
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import SearchedPoint
from pipeline.report.exhibits.scope import Scope, caption, ordered, subjects
from pipeline.report.figures.figure import Figure, MarkStyle, Panel, marks, panel
from pipeline.report.tables.table import NONE, Table, TableCell, Units, counted, lead
from pipeline.spec.exhibits import PathExhibit
from search.intervals import Interval

MEAN = "mean of the shifted sets"


@dataclass(frozen=True, slots=True)
class Step:
    """One point of an arm: accuracy on the target and on the panel's shifted sets."""

    point: SearchedPoint
    target: Interval
    shifted: Interval


@dataclass(frozen=True)
class Path:
    """One arm in one panel, with its points in order."""

    panel: str
    arm: ArmResult
    steps: Sequence[Step]


def figure(title: str, exhibit: PathExhibit, measure: Measure) -> Figure:
    """Return a panel for each shifted set and their mean, or for each expert; test split."""
    arms = subjects(measure, exhibit.arms)
    scope = Scope.of(measure, arms)
    found = [path for arm in arms for path in _paths(scope, arm, exhibit.panels)]
    titles = list(dict.fromkeys(path.panel for path in found))
    by_expert = exhibit.panels == "experts"
    panels = [_panel(measure, [p for p in found if p.panel == name], by_expert) for name in titles]
    experts = len(dict.fromkeys(p.group for arm in arms for p in scope.places(arm, "target") if p.group))
    over = f"the {MEAN}, expert by expert" if by_expert else f"mean over {counted(experts, 'expert')}"
    note = f"Test split, {over}; a line joins an arm's candidates in the order of their points, starting at the ring."
    return Figure(title, caption(exhibit.note, note), panels, arms, _table(measure, title, found))


def _paths(scope: Scope, arm: ArmResult, panels: str) -> list[Path]:
    target, shifted = scope.places(arm, "target"), scope.places(arm, "ood")
    if panels == "experts":
        groups = dict.fromkeys(place.group for place in target)
        parts = {g: ([p for p in target if p.group == g], [p for p in shifted if p.group == g]) for g in groups}
    else:
        tasks = dict.fromkeys(place.task for place in shifted)
        parts = {task: (list(target), [p for p in shifted if p.task == task]) for task in tasks}
        parts |= {MEAN: (list(target), list(shifted))} if len(tasks) > 1 else {}
    found = [Path(name, arm, _steps(scope.measure, arm, *places)) for name, places in parts.items()]
    return [path for path in found if path.steps]


def _steps(measure: Measure, arm: ArmResult, target: Sequence[GroupTask], shifted: Sequence[GroupTask]) -> list[Step]:
    steps = []
    for point in ordered(arm):
        x, y = (measure.mean(point.pick, places, "test") for places in (target, shifted))
        steps += [Step(point, x, y)] if x and y else []
    return steps


def _panel(measure: Measure, paths: Sequence[Path], small: bool) -> Panel:
    units = Units(measure.run.percent)
    traces = [_trace(path, units) for path in paths]
    titles = ("target", "shifted") if small else ("target accuracy", "accuracy on the shifted set")
    x, y = (f"{title}{units.suffix}" for title in titles)
    return panel(paths[0].panel, traces, x, y, height=250 if small else 320)


def _trace(path: Path, units: Units) -> go.Scatter:
    several = len(path.steps) > 1
    style = MarkStyle(6 if several else 12, [several and i == 0 for i in range(len(path.steps))], 12, 2 * several)
    hover = [f"{path.arm.name} {step.point.label}" for step in path.steps]
    x, y = units.axes(s.target.value for s in path.steps), units.axes(s.shifted.value for s in path.steps)
    return marks(path.arm, x, y, hover, "%{hovertext}<br>target %{x:.4g}, shifted %{y:.4g}<extra></extra>", style)


def _table(measure: Measure, title: str, paths: Sequence[Path]) -> Table:
    units = Units(measure.run.percent)
    rows = [
        (
            TableCell(path.panel),
            lead(path.arm),
            TableCell(step.point.label or NONE),
            units.mean(step.target),
            units.mean(step.shifted),
        )
        for path in paths
        for step in path.steps
    ]
    return Table(title, "", ("panel", "arm", "point", "target accuracy", "accuracy on the shifted set"), tuple(rows))
