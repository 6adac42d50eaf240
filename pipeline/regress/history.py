"""A metric over runs in the order of their times: means with intervals, and what changed from run to run."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from pipeline.regress.pairs import changes
from pipeline.regress.snapshot import Snapshot
from pipeline.report.tables.table import NONE, Table, TableCell, Units
from search.intervals import Interval, TaskOutcomes, mean_interval
from tasks.registry import near

_ROLES = ("target", "control", "ood")
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class MetricHistory:
    """One metric of several arms over runs.

    Attributes:
        metric: target, control or ood, a mean over tasks; or a task.
        runs: from the first to the last.
        lines: arm -> its mean in each run; None where the run lacks it.
        changed: what differs between each run and the one before it; of the first, nothing.
        percent: whether values read as per cent.
    """

    metric: str
    runs: Sequence[Snapshot]
    lines: dict[str, list[Interval | None]]
    changed: Sequence[Sequence[str]]
    percent: bool

    @property
    def times(self) -> list[datetime]:
        """When each run was started."""
        return [run.started for run in self.runs]

    @cached_property
    def units(self) -> Units:
        """How values read."""
        return Units(self.percent)


def make_history(snapshots: Sequence[Snapshot], metric: str, arms: Sequence[str]) -> MetricHistory:
    """Sort runs by time and follow a metric.

    Args:
        snapshots: runs or baselines, at least one, in any order.
        metric: a role, or a task's name.
        arms: which to follow; every arm but controls where empty.

    Raises:
        ValueError: one keeps no time, or no run knows the metric or an arm.
    """
    runs = sorted(snapshots, key=lambda s: s.started)
    known = list(dict.fromkeys(arm for run in runs for arm in run.arms))
    tasks = list(dict.fromkeys(task for run in runs for task in run.tasks))
    if metric not in (*_ROLES, *tasks):
        raise ValueError(f"--metric: must be {', '.join(_ROLES)} or a task, got {metric!r}; {near(metric, tasks)}")
    for arm in arms:
        if arm not in known:
            raise ValueError(f"--arm: unknown arm {arm!r}; {near(arm, known)}")
    followed = arms or list(dict.fromkeys(arm for run in runs for arm in run.plain_arms))
    lines = {arm: [_mean(run, arm, metric) for run in runs] for arm in followed}
    lines = {arm: line for arm, line in lines.items() if any(point is not None for point in line)}
    if not lines:
        raise ValueError(f"--metric: no run has {metric} of any of {', '.join(followed)}")
    percent = all(row.metric == "accuracy" for run in runs for row in run.rows)
    changed = [[], *(changes(a, b) for a, b in zip(runs, runs[1:], strict=False))]
    return MetricHistory(metric, runs, lines, changed, percent)


def _mean(run: Snapshot, arm: str, metric: str) -> Interval | None:
    """The mean over tasks of equal weight; of a task that an arm has in several roles, as a target."""
    place = 1 if metric in _ROLES else 2
    keys = [key for key in run.cells if key[0] == arm and key[place] == metric]
    if metric not in _ROLES and any(role == "target" for _, role, _ in keys):
        keys = [key for key in keys if key[1] == "target"]
    return mean_interval([TaskOutcomes(key[2], run.mean_N(key)) for key in keys]) if keys else None


def change_lines(history: MetricHistory) -> list[str]:
    """What changed, one line a run, for where a column would be too narrow."""
    pairs = zip(history.runs, history.changed, strict=True)
    return [f"{_time(run)}: {'; '.join(changed)}" for run, changed in pairs if changed]


def history_table(history: MetricHistory, told: bool = True) -> Table:
    """One row a run, the last one first; where `told`, with what changed."""
    unit = history.units
    rows = []
    for i, run in enumerate(history.runs):
        cells = [unit.mean(line[i]) for line in history.lines.values()]
        last = [TableCell("; ".join(history.changed[i]))] * told
        rows.append((TableCell(_time(run), tone="lead"), TableCell(run.place), *cells, *last))
    columns = ("started, UTC", "run", *history.lines, *["changed since the run before"] * told)
    note = "Means on test with 95% intervals by bootstrap. For differences between two runs there is lines regress."
    return Table(f"History of {history.metric}", note, columns, tuple(reversed(rows)))


def trend_table(history: MetricHistory) -> Table:
    """One row an arm: its course as a sparkline, with the least, the most, and the last value."""
    unit, rows = history.units, []
    for arm, line in history.lines.items():
        values = [point.value for point in line if point is not None]
        numbers = (TableCell(unit.number(value)) for value in (min(values), max(values), values[-1]))
        rows.append(
            (
                TableCell(arm, tone="lead"),
                TableCell(sparkline([None if p is None else p.value for p in line])),
                *numbers,
            )
        )
    note = f"From the first run to the last, each arm from its own least (▁) to its own most (█); {NONE}: not scored."
    return Table(f"Trend of {history.metric}", note, ("arm", "trend", "least", "most", "last"), tuple(rows))


def sparkline(values: Sequence[float | None]) -> str:
    """One character a value, from the least to the most; in the middle where all are equal."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    span = high - low
    return "".join(
        NONE if v is None else _BARS[round((v - low) / span * (len(_BARS) - 1)) if span else 3] for v in values
    )


def means_table(snapshot: Snapshot) -> Table:
    """Every arm on every task."""
    rows = []
    for (arm, role, task), of in snapshot.cells.items():
        row = next(iter(of.values()))
        mean = Units(row.metric == "accuracy").mean(
            mean_interval([TaskOutcomes(task, snapshot.mean_N((arm, role, task)))])
        )
        rows.append(
            (TableCell(arm, tone="lead"), TableCell(task), TableCell(role), mean, TableCell(str(len(row.outcomes_N))))
        )
    note = "Means on test with 95% intervals by bootstrap; of an edit, over experts that have the task in that role."
    return Table("What every arm chose", note, ("arm", "task", "role", "mean", "samples"), tuple(rows))


def _time(run: Snapshot) -> str:
    return run.started.strftime("%Y-%m-%d %H:%M")
