"""What a person sees while a run works: candidates, shards, rate, time left, best so far."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from pipeline.run.progress import RunProgress

#: Where there is no terminal, a line of text this often.
_LINE_SECONDS = 10.0


class Rate:
    """Shards a second since the first answer: before it, workers were loading."""

    def __init__(self) -> None:
        """Nothing is answered yet."""
        self._first: tuple[float, int] | None = None  # when the first answer came, and how many had by then

    def after(self, progress: RunProgress) -> float:
        """Take note of a step of the driver; the rate by now, 0 before the first answer."""
        now = time.monotonic()
        if self._first is None and progress.shards_evaluated:
            self._first = now, progress.shards_evaluated
        since, first = self._first or (now, 0)
        return (progress.shards_evaluated - first) / max(1e-9, now - since) if self._first else 0.0


class RunDisplay:
    """A live display on a terminal, now and then a line elsewhere."""

    def __init__(self, console: Console) -> None:
        """Start nothing yet: see `shown`."""
        self._console = console
        self._bars = Bars(
            TextColumn("[bold]{task.description:<10}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("shards  {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("elapsed, ETA"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._task: TaskID | None = None
        self._live: Live | None = None
        self._rate = Rate()
        self._spoken = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator["RunDisplay"]:
        """Show it while the block runs."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(self._bars, console=self._console, refresh_per_second=4, transient=True) as self._live:
            yield self

    def __call__(self, progress: RunProgress) -> None:
        """Take note of a step of the driver."""
        rate = self._rate.after(progress)
        if self._live is None:
            self._say(progress, rate)
            return
        if self._task is None:
            self._task = self._bars.add_task(progress.phase, total=None, rate="")
        self._bars.update(
            self._task,
            description=progress.phase,
            completed=progress.shards_done,
            total=max(progress.shards_expected, progress.shards_asked),
            rate=f"{rate:.1f}/s",
        )
        self._live.update(Group(self._bars, _details(progress)))

    def _say(self, progress: RunProgress, rate: float) -> None:
        if time.monotonic() - self._spoken < _LINE_SECONDS:
            return
        self._spoken = time.monotonic()
        total = max(progress.shards_expected, progress.shards_asked)
        left = (total - progress.shards_done) / rate if rate else 0.0
        self._console.print(
            f"{progress.phase}: {progress.candidates_done} candidates, {progress.shards_done}/{total} shards, "
            f"{rate:.1f}/s, about {left:.0f} s left, {progress.from_cache} from cache, {progress.failures} failures",
            soft_wrap=True,
            highlight=False,
        )


def _details(progress: RunProgress) -> Table:
    """Counts, and the best objective so far of each arm (the mean over an edit's experts)."""
    table = Table.grid(padding=(0, 2))
    table.add_row(
        f"{progress.candidates_done} candidates",
        f"{progress.from_cache} shards from cache",
        f"{progress.failures} failures",
    )
    arms: dict[str, list[float]] = {}
    for (arm, _), value in progress.best.items():
        arms.setdefault(arm, []).append(value)
    for arm, values in arms.items():
        table.add_row(f"best of [cyan]{arm}[/]", f"{sum(values) / len(values):.4f}", f"{len(values)} searched")
    return table
