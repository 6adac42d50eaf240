"""The dashboard's page as parts of HTML, in which every name is escaped."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.records.sample_order import data_split
from pipeline.report.data.arms import ArmResult
from pipeline.report.data.points import describe
from pipeline.report.figures.figure import Figure
from pipeline.report.rendering.render import fragment
from pipeline.report.tables.results import FAILED
from pipeline.report.tables.table import NONE, Table, TableCell, decimal, lead
from pipeline.run.selection import Candidate, choose
from pipeline.watch.follow.survey import PendingCandidate, Survey, label
from pipeline.watch.follow.tail import TailState, WorkerTally
from pipeline.watch.progress_file import DriverStatus

#: Rows of a table that grows with the run.
_ROWS = 40

TableRow = tuple[TableCell, ...]


@dataclass
class PageState:
    """A run at one moment.

    Attributes:
        place: the run's folder, as the user wrote it.
        seen: the contents of its journal.
        driver: the last status of its driver.
        state: waiting, running, quiet or finished.
        quiet_for: seconds since the last sign of the run.
        rate: shards a second.
        expected: shards in all, at most.
        survey: its candidates; None before the run has started.
        arms: those of the figures, by name.
        trouble: why something cannot be shown.
    """

    place: str
    seen: TailState
    driver: DriverStatus
    state: str
    quiet_for: float = 0.0
    rate: float = 0.0
    expected: int = 0
    survey: Survey | None = None
    arms: Mapping[str, ArmResult] = field(default_factory=dict)
    trouble: str = ""

    @property
    def name(self) -> str:
        """The run's name, or its place before it has started."""
        header = self.seen.history.header
        return str(header["spec"]["name"]) if header else self.place

    def label(self, request: EvalRequest) -> str:
        """Return the arm and expert of a request's recipe."""
        return self.survey.names.get(request.recipe_id, request.recipe_id) if self.survey else request.recipe_id

    @property
    def done(self) -> int:
        """Shards that have an answer."""
        return len(self.seen.history.answers)

    @property
    def total(self) -> int:
        """Shards in all: an upper bound until the run has ended."""
        return self.done if self.state == "finished" else max(self.expected, self.done)

    @property
    def phase(self) -> str:
        """The driver's phase: references, search or test."""
        history = self.seen.history
        if any(answer.request.split == "test" for answer in self.seen.latest):
            return "test"
        return "search" if history.proposals else "references"

    @property
    def from_cache(self) -> int:
        """Shards that the score cache answered."""
        counts = self.seen.history.provenance.get("counts", {})
        return int(counts.get("shards_from_cache", self.driver.from_cache))

    @property
    def left(self) -> str:
        """The time left, at most."""
        return spoken((self.total - self.done) / self.rate) if self.rate > 0 and self.state == "running" else NONE

    @property
    def failures(self) -> list[Failure]:
        """The failures that were not scored later, the newest first."""
        return list(self.seen.failures.values())[::-1]


def status(page: PageState) -> str:
    """Return the part above the figures."""
    return fragment("live_status.html.j2", page=page, best=best_table(page), quiet=spoken(page.quiet_for))


def details(page: PageState) -> str:
    """Return the part below the figures."""
    tables = [t for t in (pending_table(page), worker_table(page), latest_table(page)) if t.rows]
    return fragment("live_details.html.j2", page=page, failures=failure_table(page), tables=tables)


def drawings(figures: Sequence[Figure]) -> list[dict[str, object]]:
    """Return each figure's frame, and for each of its panels the JSON that plotly.js draws."""
    return [
        {
            "title": figure.title,
            "html": fragment("live_figure.html.j2", figure=figure),
            "panels": [panel.json for panel in figure.panels],
        }
        for figure in figures
    ]


def spoken(seconds: float) -> str:
    """Return a duration in one or two units."""
    if seconds < 99:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60:02d} min"


def best_table(page: PageState) -> Table:
    """Return the best so far of each arm: the mean over an edit's experts of what would be chosen now."""
    arms: dict[str, list[list[Candidate]]] = {}
    for (arm, _), candidates in (page.survey.judged if page.survey else {}).items():
        arms.setdefault(arm, []).append(candidates)
    rows = [row for arm, groups in arms.items() if (row := _best_row(page, arm, groups))]
    note = (
        "On validation, by the objectives that the arm's search maximises. For edits it is the mean over the experts "
        "that have a scored candidate."
    )
    columns = ("arm", "objective", "searches with a best", "candidates", "stopped", "failed", "best point")
    return Table("Best so far", note, columns, tuple(rows))


def _best_row(page: PageState, arm: str, groups: Sequence[Sequence[Candidate]]) -> TableRow | None:
    candidates = [candidate for group in groups for candidate in group]
    chosen = [best for group in groups if (best := choose(group)) is not None]
    if not candidates:
        return None
    columns = zip(*(c.values for c in chosen if c.values is not None), strict=True)
    means = [sum(values) / len(values) for values in columns]
    point = describe(chosen[0].proposal.point) if len(groups) == len(chosen) == 1 else ""
    return _row(
        lead(page.arms[arm]) if arm in page.arms else arm,
        ", ".join(decimal(mean, 4) for mean in means),
        f"{len(chosen)} of {len(groups)}",
        str(len(candidates)),
        str(sum(c.stopped is not None for c in candidates)),
        str(sum(bool(c.failure) for c in candidates)),
        point,
    )


def _row(first: str | TableCell, *texts: str) -> TableRow:
    """Return a row of a leading cell and texts, of which empty ones are shown as none."""
    name = TableCell(first, tone="lead") if isinstance(first, str) else first
    return name, *(TableCell(text or NONE) for text in texts)


def pending_table(page: PageState) -> Table:
    """Return the candidates of which some shards, but not all, are answered."""
    pending = page.survey.pending if page.survey and page.state != "finished" else []
    started = [candidate for candidate in pending if candidate.answered]
    note = f"{len(pending)} proposed candidates are not scored in full; {len(started)} of these are started."
    return Table("In progress", note, ("candidate", "point", "shards"), tuple(map(_pending_row, started[:_ROWS])))


def _pending_row(candidate: PendingCandidate) -> TableRow:
    name = f"{label(candidate.group)}, {candidate.proposal.number}"
    return _row(name, describe(candidate.proposal.point), f"{candidate.answered} of {candidate.shards}")


def worker_table(page: PageState) -> Table:
    """Return the work of each worker."""
    work, provenance = page.seen.work, page.seen.history.provenance
    devices = {w["name"]: w["device"] for w in provenance.get("workers", ())} | page.driver.devices
    total = sum(of.shards for of in work.values())
    names = sorted({*work, *devices} - {""}, key=_natural)
    rows = (_worker_row(name, devices.get(name, ""), work.get(name, WorkerTally()), total) for name in names[:_ROWS])
    note = (
        "Share: of the answers. Busy: seconds at work, as the workers measured them; a shard from the cache counts for "
        "the worker that scored it then."
    )
    more = f" The first {_ROWS} of {len(names)}." if len(names) > _ROWS else ""
    columns = ("worker", "device", "shards", "share", "failed", "rebuilding", "evaluating")
    return Table("Workers", note + more, columns, tuple(rows))


def _worker_row(name: str, device: str, work: WorkerTally, total: int) -> TableRow:
    share = f"{100 * work.shards / total:.0f}%" if total else ""
    seconds = (f"{seconds:.1f} s" for seconds in work.seconds)
    return _row(name, device, f"{work.shards:,}", share, str(work.failures), *seconds)


def _natural(name: str) -> tuple[str, int]:
    kind, _, number = name.rpartition("-")
    return (kind, int(number)) if number.isdigit() else (name, 0)


def failure_table(page: PageState) -> Table:
    """Return the failures with their causes, the newest first."""
    failures = page.failures
    rows = []
    for failure in failures[:_ROWS]:
        name, task, shard = _shard(page, failure)
        rows.append(_row(name, failure.kind, task, shard, failure.worker, failure.cause))
    more = f" The last {_ROWS} of {len(failures)}." if len(failures) > _ROWS else ""
    columns = ("arm (expert)", "kind", "task", "shard", "worker", "cause")
    return Table("Failures", FAILED + more, columns, tuple(rows))


def _shard(page: PageState, answer: ShardScore | Failure) -> tuple[str, str, str]:
    """Return the label, the task and the shard of an answer."""
    request = answer.request
    return page.label(request), request.task, f"{data_split(request.split)} {request.shard}"


def latest_table(page: PageState) -> Table:
    """Return the last answers, the newest first."""
    rows = []
    for answer in reversed(page.seen.latest):
        cells = [f"failed: {answer.kind}", "", ""] if isinstance(answer, Failure) else _score_cells(answer)
        rows.append(_row(*_shard(page, answer), *cells, answer.worker))
    columns = ("arm (expert)", "task", "shard", "mean", "samples", "seconds", "worker")
    return Table("Last answers", "The newest first.", columns, tuple(rows))


def _score_cells(score: ShardScore) -> list[str]:
    return [decimal(score.stats.mean, 4), str(score.stats.n), f"{sum(score.seconds):.2f}"]
