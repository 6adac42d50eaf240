"""The display of a run on the terminal: candidates, shards, rate, time left, best so far."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from pipeline.run.progress import RunProgress

#: Seconds between lines of text if the output is not a terminal.
_LINE_SECONDS = 10.0


class RunDisplay:
    """A live display on a terminal, and a line from time to time elsewhere."""

    def __init__(self, console: Console) -> None:
        """Prepare the display, which `shown` starts."""
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
        self._printed = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator["RunDisplay"]:
        """Show the display while the block runs."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(self._bars, console=self._console, refresh_per_second=4, transient=True) as self._live:
            yield self

    def __call__(self, progress: RunProgress) -> None:
        """Observe a step of the driver."""
        if self._live is None:
            self._print_line(progress)
            return
        if self._task is None:
            self._task = self._bars.add_task(progress.phase, total=None, rate="")
        self._bars.update(
            self._task,
            description=progress.phase,
            completed=progress.shards_done,
            total=progress.shards_total,
            rate=f"{progress.rate:.1f}/s",
        )
        self._live.update(Group(self._bars, _details(progress)))

    def _print_line(self, progress: RunProgress) -> None:
        if time.monotonic() - self._printed < _LINE_SECONDS:
            return
        self._printed = time.monotonic()
        total, rate = progress.shards_total, progress.rate
        left = (total - progress.shards_done) / rate if rate else 0.0
        self._console.print(
            f"{progress.phase}: {progress.candidates_done} candidates, {progress.shards_done}/{total} shards, "
            f"{rate:.1f}/s, about {left:.0f} s left, {progress.from_cache} from cache, {progress.failures} failures",
            soft_wrap=True,
            highlight=False,
        )


def _details(progress: RunProgress) -> Table:
    """Return counts, and the best objective so far of each arm (the mean over an edit's experts)."""
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
        name, mean = Text.assemble("best of ", (arm, "cyan")), sum(values) / len(values)
        table.add_row(name, f"{mean:.4f}", f"{len(values)} searched")
    return table
