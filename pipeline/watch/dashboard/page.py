"""What the dashboard shows of a run, as parts of HTML in which every name is escaped."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.messages import Failure, ShardScore
from pipeline.report.data.points import describe
from pipeline.report.figures.figure import Figure
from pipeline.report.rendering.render import fragment
from pipeline.report.tables.table import NONE, Table, TableCell, decimal
from pipeline.run.selection import Candidate, choose
from pipeline.watch.follow.survey import Open, Survey, label
from pipeline.watch.follow.tail import Seen, WorkerTally
from pipeline.watch.progress_file import Said

#: Rows of a table that grows with the run.
_ROWS = 40

TableRow = tuple[TableCell, ...]


@dataclass
class Look:
    """A run at one moment.

    Attributes:
        place: where the run is, for people.
        seen: what its journal holds.
        said: what its driver said last.
        state: waiting, running, quiet or finished.
        quiet_for: seconds since anything was heard of it.
        rate: shards a second.
        expected: shards in all, at most.
        survey: its candidates; None before the run has started.
        colours: arm -> colour, for the arms that a figure shows.
        trouble: what cannot be shown, and why.
    """

    place: str
    seen: Seen
    said: Said
    state: str
    quiet_for: float = 0.0
    rate: float = 0.0
    expected: int = 0
    survey: Survey | None = None
    colours: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""

    @property
    def name(self) -> str:
        """The run's name, as far as it is known."""
        header = self.seen.history.header
        return str(header["spec"]["name"]) if header else self.place

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
        """What the driver works on."""
        history = self.seen.history
        if any(answer.request.split == "test" for answer in self.seen.latest):
            return "test"
        return "search" if history.proposals else "references"

    @property
    def from_cache(self) -> int:
        """Shards that other runs had scored."""
        counts = self.seen.history.provenance.get("counts", {})
        return int(counts.get("shards_from_cache", self.said.from_cache))

    @property
    def left(self) -> str:
        """How long it may take still."""
        return spoken((self.total - self.done) / self.rate) if self.rate > 0 and self.state == "running" else NONE

    @property
    def failures(self) -> list[Failure]:
        """The failures that stand, the newest first."""
        return list(self.seen.failures.values())[::-1]


def status(look: Look) -> str:
    """The part above the figures."""
    return fragment("live_status.html.j2", look=look, best=best_table(look), quiet=spoken(look.quiet_for))


def details(look: Look) -> str:
    """The part below the figures."""
    tables = [open_table(look), worker_table(look), latest_table(look)]
    return fragment(
        "live_details.html.j2", look=look, failures=failure_table(look), tables=[t for t in tables if t.rows]
    )


def drawings(figures: Sequence[Figure]) -> list[dict[str, object]]:
    """Each figure as its frame, and for each of its panels what plotly.js draws."""
    return [
        {
            "title": figure.title,
            "html": fragment("live_figure.html.j2", figure=figure),
            "panels": [panel.json for panel in figure.panels],
        }
        for figure in figures
    ]


def spoken(seconds: float) -> str:
    """A length of time in two units."""
    if seconds < 99:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60:02d} min"


def best_table(look: Look) -> Table:
    """The best so far of each arm: the mean over an edit's experts of what would be chosen now."""
    arms: dict[str, list[list[Candidate]]] = {}
    for (arm, _), found in (look.survey.judged if look.survey else {}).items():
        arms.setdefault(arm, []).append(found)
    rows = [row for arm, groups in arms.items() if (row := _best_row(look, arm, groups))]
    note = (
        "On validation, by the objectives that the arm's search maximises. Of edits it is the mean over the experts "
        "that have a scored candidate."
    )
    columns = ("arm", "objective", "searches with a best", "candidates", "failed", "best point")
    return Table("Best so far", note, columns, tuple(rows))


def _best_row(look: Look, arm: str, groups: Sequence[Sequence[Candidate]]) -> TableRow | None:
    every = [candidate for found in groups for candidate in found]
    chosen = [best for found in groups if (best := choose(found)) is not None]
    if not every:
        return None
    columns = zip(*(c.values for c in chosen if c.values is not None), strict=True)
    means = [sum(values) / len(values) for values in columns]
    point = describe(chosen[0].proposal.point) if len(groups) == len(chosen) == 1 else ""
    return (
        TableCell(arm, tone="lead", colour=look.colours.get(arm, "")),
        TableCell(", ".join(decimal(mean, 4) for mean in means) or NONE),
        TableCell(f"{len(chosen)} of {len(groups)}"),
        TableCell(str(len(every))),
        TableCell(str(sum(c.values is None for c in every))),
        TableCell(point or NONE),
    )


def open_table(look: Look) -> Table:
    """Candidates of which some shards are answered; the others wait."""
    every = look.survey.open if look.survey and look.state != "finished" else []
    begun = [entry for entry in every if entry.answered]
    note = f"{len(every)} proposed candidates are not scored in full; of these, {len(begun)} are begun."
    return Table("Under way", note, ("candidate", "point", "shards"), tuple(map(_open_row, begun[:_ROWS])))


def _open_row(entry: Open) -> TableRow:
    name = TableCell(f"{label(entry.group)}, {entry.proposal.number}", tone="lead")
    return name, TableCell(describe(entry.proposal.point) or NONE), TableCell(f"{entry.answered} of {entry.shards}")


def worker_table(look: Look) -> Table:
    """Who did what."""
    work, provenance = look.seen.work, look.seen.history.provenance
    devices = {w["name"]: w["device"] for w in provenance.get("workers", ())} | look.said.devices
    total = sum(of.shards for of in work.values())
    names = sorted({*work, *devices} - {""}, key=_natural)
    rows = tuple(
        _worker_row(name, devices.get(name, NONE), work.get(name, WorkerTally()), total) for name in names[:_ROWS]
    )
    note = (
        "Share: of the answers. Busy: seconds at work, as the workers measured them; a shard from the cache counts for "
        "the worker that scored it then."
    )
    more = f" The first {_ROWS} of {len(names)}." if len(names) > _ROWS else ""
    return Table(
        "Workers", note + more, ("worker", "device", "shards", "share", "failed", "rebuilding", "evaluating"), rows
    )


def _worker_row(name: str, device: str, work: WorkerTally, total: int) -> TableRow:
    share = f"{100 * work.shards / total:.0f}%" if total else NONE
    cells = [device, f"{work.shards:,}", share, str(work.failures), *(f"{seconds:.1f} s" for seconds in work.seconds)]
    return (TableCell(name, tone="lead"), *map(TableCell, cells))


def _natural(name: str) -> tuple[str, int]:
    kind, _, number = name.rpartition("-")
    return (kind, int(number)) if number.isdigit() else (name, 0)


def failure_table(look: Look) -> Table:
    """Failures with their causes, the newest first."""
    failures = look.failures
    names = look.survey.names if look.survey else {}
    rows = tuple(_failure_row(failure, names) for failure in failures[:_ROWS])
    more = f" The last {_ROWS} of {len(failures)}." if len(failures) > _ROWS else ""
    note = f"A failed candidate has no score; it is never counted as zero.{more}"
    return Table("Failures", note, ("arm (expert)", "kind", "task", "shard", "worker", "cause"), rows)


def _failure_row(failure: Failure, names: Mapping[str, str]) -> TableRow:
    request = failure.request
    cells = [failure.kind, request.task, f"{request.split} {request.shard}", failure.worker or NONE, failure.cause]
    return (TableCell(names.get(request.recipe_id, request.recipe_id), tone="lead"), *map(TableCell, cells))


def latest_table(look: Look) -> Table:
    """The last answers, the newest first."""
    names = look.survey.names if look.survey else {}
    rows = tuple(_answer_row(answer, names) for answer in reversed(look.seen.latest))
    columns = ("arm (expert)", "task", "shard", "mean", "samples", "seconds", "worker")
    return Table("Last answers", "The newest first.", columns, rows)


def _answer_row(answer: ShardScore | Failure, names: Mapping[str, str]) -> TableRow:
    request = answer.request
    lead = TableCell(names.get(request.recipe_id, request.recipe_id), tone="lead")
    where = [TableCell(request.task), TableCell(f"{request.split} {request.shard}")]
    if isinstance(answer, Failure):
        return (
            lead,
            *where,
            TableCell(f"failed: {answer.kind}"),
            TableCell(NONE),
            TableCell(NONE),
            TableCell(answer.worker or NONE),
        )
    cells = [decimal(answer.stats.mean, 4), str(answer.stats.n), f"{sum(answer.seconds):.2f}", answer.worker or NONE]
    return (lead, *where, *map(TableCell, cells))
