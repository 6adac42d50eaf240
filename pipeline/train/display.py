"""What people see of models in training, and the lock of the folder that they are written to. Free of torch."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pipeline.errors import LockedError
from tasks.files.locks import locked

#: Where there is no terminal, a line of text this often.
_LINE_SECONDS = 10.0
_NAMED = 5


class TrainingStatus(Protocol):
    """How far a model is."""

    @property
    def step(self) -> int:
        """Steps done."""
        ...

    @property
    def total(self) -> int:
        """Steps in all; a training that has ended is there, even where it stopped early."""
        ...

    @property
    def said(self) -> str:
        """How it goes, in a few words, such as `loss 0.123`."""
        ...


class TrainingJob(Protocol):
    """A model to make."""

    @property
    def name(self) -> str:
        """One of its own among the jobs of a command."""
        ...

    @property
    def total(self) -> int:
        """Steps in all."""
        ...


@contextmanager
def alone(folder: Path, command: str) -> Iterator[None]:
    """One command at a time writes in a folder.

    Raises:
        LockedError: another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    busy = LockedError(f"{folder}: another `lines {command}` is writing there")
    with locked(folder / f"{command}.lock", busy):
        yield


def say_conditions(console: Console, conditions: Mapping[str, str]) -> None:
    """Print which models are finished and which go on; `conditions` come from `pipeline.train.model_folder`."""
    for what in ("finished", "started"):
        if names := [name for name, found in conditions.items() if found == what]:
            verb = "are finished" if what == "finished" else "go on from a checkpoint"
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            said = f"{len(names)} of {len(conditions)} {verb}: {', '.join(names[:_NAMED])}{more}"
            console.print(said, highlight=False, markup=False)


class TrainingDisplay:
    """A bar for all steps and one for each model in training; now and then a line where there is no terminal."""

    def __init__(self, console: Console, jobs: Sequence[TrainingJob], noun: str = "models") -> None:
        """Start nothing yet: see `shown`."""
        self._console, self._noun = console, noun
        self._totals = {job.name: job.total for job in jobs}
        self._known: dict[str, TrainingStatus] = {}
        self._rows: dict[str, TaskID] = {}
        self._spoken = time.monotonic()
        self._bars = Bars(
            TextColumn("[bold]{task.description:<24}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("steps  {task.fields[said]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )

    @contextmanager
    def shown(self) -> Iterator["TrainingDisplay"]:
        """Show it while the block runs."""
        if not self._console.is_terminal or not self._totals:
            yield self
            return
        with self._bars:
            self._rows[""] = self._bars.add_task(self._summary(), total=sum(self._totals.values()), said="")
            yield self

    def __call__(self, told: Mapping[str, TrainingStatus]) -> None:
        """Take note of how far models are."""
        self._known.update(told)
        if not self._rows:
            self._say()
            return
        done = sum(t.step for t in self._known.values())
        self._bars.update(self._rows[""], completed=done, description=self._summary())
        for name, state in told.items():
            if name not in self._rows:
                self._rows[name] = self._bars.add_task(name, total=state.total, said="")
            visible = state.step < state.total
            self._bars.update(self._rows[name], completed=state.step, said=state.said, visible=visible)

    def _summary(self) -> str:
        finished = sum(t.step == t.total for t in self._known.values())
        return f"{finished} of {len(self._totals)} {self._noun}"

    def _say(self) -> None:
        if time.monotonic() - self._spoken < _LINE_SECONDS:
            return
        self._spoken = time.monotonic()
        now = [f"{n} {t.step}/{t.total} {t.said}" for n, t in self._known.items() if t.step < t.total]
        self._console.print("; ".join([self._summary(), *now]), soft_wrap=True, highlight=False, markup=False)
