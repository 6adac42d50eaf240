"""A metric over runs in the order of their start: means with intervals, and what changed between runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.regress.pairs import changes
from pipeline.regress.snapshot import Snapshot
from pipeline.report.tables.table import NONE, Table, TableCell, Units
from search.intervals import Interval, TaskOutcomes, mean_interval
from tasks.metrics import lower_is_better
from tasks.registry import near

_ROLES = ("target", "control", "ood")
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class MetricHistory:
    """One metric of several arms over runs.

    Attributes:
        metric: target, control or ood, each a mean over tasks; or a task.
        runs: from the first to the last.
        lines: arm -> its mean in each run; None if the run lacks it.
        changed: the differences between each run and its predecessor; empty for the first.
        units: how values are shown.
    """

    metric: str
    runs: Sequence[Snapshot]
    lines: dict[str, list[Interval | None]]
    changed: Sequence[Sequence[str]]
    units: Units

    @property
    def times(self) -> list[datetime]:
        """The start of each run."""
        return [run.started for run in self.runs]


def make_history(snapshots: Sequence[Snapshot], metric: str, arms: Sequence[str]) -> MetricHistory:
    """Return a metric over runs, sorted by their start.

    Args:
        snapshots: runs or baselines, at least one, in any order.
        metric: a role, or a task's name.
        arms: the arms to follow; every arm except controls if empty.

    Raises:
        ValueError: if a run has no time, or no run has the metric or an arm.
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
        raise ValueError(f"--metric: no run has {metric} for any of {', '.join(followed)}")
    units = _units(runs, metric)
    changed = [[], *(changes(a, b) for a, b in zip(runs, runs[1:], strict=False))]
    return MetricHistory(metric, runs, lines, changed, units)


def _units(runs: Sequence[Snapshot], metric: str) -> Units:
    """Return the units of a task, or of the means over tasks, in which no bits per byte count."""
    own = {row.metric for run in runs for row in run.rows if row.task == metric}
    if metric not in _ROLES and len(own) == 1:
        return Units.of_metric(own.pop())
    every = {row.metric for run in runs for row in run.rows if not lower_is_better(row.metric)}
    return Units(every <= {"accuracy"})


def _mean(run: Snapshot, arm: str, metric: str) -> Interval | None:
    """The mean over tasks of equal weight; a task that an arm has in several roles counts as a target."""
    place = 1 if metric in _ROLES else 2
    keys = [key for key in run.cells if key[0] == arm and key[place] == metric]
    if metric in _ROLES:
        keys = [key for key in keys if not lower_is_better(run.metric(key))]
    if metric not in _ROLES and any(role == "target" for _, role, _ in keys):
        keys = [key for key in keys if key[1] == "target"]
    return mean_interval([TaskOutcomes(key[2], run.mean_N(key)) for key in keys]) if keys else None


@dataclass(frozen=True, slots=True)
class RunChanges:
    """What differs between a run and its predecessor."""

    time: str
    place: str
    changes: Sequence[str]


def run_changes(history: MetricHistory) -> list[RunChanges]:
    """Return what changed, for each run with changes, the first run first."""
    pairs = zip(history.runs, history.changed, strict=True)
    return [RunChanges(_time(run), run.place, changed) for run, changed in pairs if changed]


def change_lines(history: MetricHistory) -> list[str]:
    """Return the changes, one line a run, since a column on the terminal is too narrow for them."""
    return [f"{found.time}: {'; '.join(found.changes)}" for found in run_changes(history)]


def history_table(history: MetricHistory, changes_too: bool = True) -> Table:
    """Return one row a run, the last one first, with its changes if asked for."""
    unit = history.units
    rows = []
    for i, run in enumerate(history.runs):
        cells = [unit.mean(line[i]) for line in history.lines.values()]
        last = [TableCell("; ".join(history.changed[i]))] * changes_too
        rows.append((TableCell(_time(run), tone="lead"), TableCell(run.place), *cells, *last))
    columns = ("started, UTC", "run", *history.lines, *["changed since the previous run"] * changes_too)
    note = "Means on test with 95% intervals by bootstrap. The command lines regress compares two runs by pairs."
    return Table(f"History of {history.metric}", note, columns, tuple(reversed(rows)))


def trend_table(history: MetricHistory) -> Table:
    """Return one row an arm: a sparkline over the runs, with the lowest, highest and last value."""
    rows = []
    for arm, line in history.lines.items():
        values = [None if point is None else point.value for point in line]
        known = [value for value in values if value is not None]
        texts = [sparkline(values), *map(history.units.number, (min(known), max(known), known[-1]))]
        rows.append((TableCell(arm, tone="lead"), *map(TableCell, texts)))
    note = (
        "From the first run to the last; each arm has its own scale, from its lowest value (▁) to its highest (█); "
        f"{NONE}: not scored."
    )
    return Table(f"Trend of {history.metric}", note, ("arm", "trend", "lowest", "highest", "last"), tuple(rows))


def sparkline(values: Sequence[float | None]) -> str:
    """Return one character a value, scaled from the lowest to the highest; in the middle if all are equal."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    span = high - low
    return "".join(
        NONE if v is None else _BARS[round((v - low) / span * (len(_BARS) - 1)) if span else 3] for v in values
    )


def means_table(snapshot: Snapshot) -> Table:
    """Return the mean of every arm on every task."""
    rows = []
    for key, models in snapshot.cells.items():
        (arm, role, task), first = key, next(iter(models.values()))
        mean = Units.of_metric(first.metric).mean(mean_interval([TaskOutcomes(task, snapshot.mean_N(key))]))
        place, count = (TableCell(task), TableCell(role)), TableCell(str(len(first.outcomes_N)))
        rows.append((TableCell(arm, tone="lead"), *place, mean, count))
    note = "Means on test with 95% intervals by bootstrap; of an edit, over the experts with the task in this role."
    return Table("The choices of every arm", note, ("arm", "task", "role", "mean", "samples"), tuple(rows))


def _time(run: Snapshot) -> str:
    return run.started.strftime("%Y-%m-%d %H:%M")
