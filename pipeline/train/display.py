"""The terminal display of models in training."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pipeline.train.job import TrainingJob, TrainingStatus

#: Seconds between two lines of text, if the output is no terminal.
_LINE_SECONDS = 10.0


class TrainingDisplay:
    """One bar for all steps and one for each model in training; without a terminal, a line of text now and then.

    Example:
        with TrainingDisplay(console, jobs).shown() as display:
            display({"full/mnist": TrainingStatus(3, 100, "loss 0.123")})
    """

    def __init__(self, console: Console, jobs: Sequence[TrainingJob], noun: str = "models") -> None:
        """Prepare the bars; `shown` shows them.

        Args:
            console: where to print.
            jobs: to train.
            noun: what the jobs make, in the plural.
        """
        self._console, self._noun = console, noun
        self._totals = {job.name: job.total for job in jobs}
        self._states: dict[str, TrainingStatus] = {}
        self._rows: dict[str, TaskID] = {}
        self._printed = time.monotonic()
        self._bars = Bars(
            TextColumn("[bold]{task.description:<24}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("steps  {task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )

    @contextmanager
    def shown(self) -> Iterator["TrainingDisplay"]:
        """Show the bars while the block runs."""
        if not self._console.is_terminal or not self._totals:
            yield self
            return
        with self._bars:
            self._rows[""] = self._bars.add_task(self._summary(), total=sum(self._totals.values()), text="")
            yield self

    def __call__(self, states: Mapping[str, TrainingStatus]) -> None:
        """Update the state of jobs, given by name."""
        self._states.update(states)
        if not self._rows:
            self._print()
            return
        done = sum(state.step for state in self._states.values())
        self._bars.update(self._rows[""], completed=done, description=self._summary())
        for name, state in states.items():
            if name not in self._rows:
                self._rows[name] = self._bars.add_task(name, total=state.total, text="")
            visible = state.step < state.total
            self._bars.update(self._rows[name], completed=state.step, text=state.text, visible=visible)

    def _summary(self) -> str:
        finished = sum(state.step == state.total for state in self._states.values())
        return f"{finished} of {len(self._totals)} {self._noun}"

    def _print(self) -> None:
        if time.monotonic() - self._printed < _LINE_SECONDS:
            return
        self._printed = time.monotonic()
        training = [f"{n} {s.step}/{s.total} {s.text}" for n, s in self._states.items() if s.step < s.total]
        self._console.print("; ".join([self._summary(), *training]), soft_wrap=True, highlight=False, markup=False)
