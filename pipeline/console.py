"""The terminal: one console for all commands, and errors without tracebacks."""

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text, TextType

from pipeline.errors import UserError
from pipeline.signals import STOPPED, is_stopping, stop_on_signals, terminal_closed

#: An error shows at most this many characters of a line: it may hold a name or a value of any length.
_LONGEST_LINE = 4000
#: Columns where there is no terminal, and those of a rule.
_UNBOUNDED, _RULE = 1000, 100


def plain(text: str) -> str:
    """Remove control characters, with which text from a spec, a file or a log could steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


class ShownOnce(logging.Filter):
    """Drops the repeated warnings about inputs: a driver and a worker in one process both read them.

    Example:
        >>> once = ShownOnce()
        >>> record = logging.makeLogRecord({"name": "tasks.vision", "msg": "2 images are turned"})
        >>> bool(once.filter(record)), bool(once.filter(record))
        (True, False)
    """

    def __init__(self) -> None:
        """Remember no message yet."""
        super().__init__()
        self._shown: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is new, or no warning about inputs."""
        text = record.getMessage()
        repeated = text in self._shown
        self._shown.add(text)
        return not (repeated and record.name.startswith(("tasks.", "pipeline.loading.")))


class _PlainConsole(Console):
    """A console that prints text as it is: names may hold [brackets] and :colons:, which rich interprets.

    Rich's own control characters are emitted, and those of the printed text are removed. For colours see `styled`.
    """

    def __init__(self, stderr: bool = False, quiet: bool = False) -> None:
        """Write to stdout, or to stderr."""
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = _UNBOUNDED  # in the log of a job, lines and tables are as wide as they need to be

    def rule(self, title: TextType = "", **style: Any) -> None:
        self.print(Rule(title, **style), width=min(self.width, _RULE))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def styled(style: str, text: str, rest: str = "") -> Text:
    """Return text in a style such as "bold red", followed by `rest` without it."""
    return Text.assemble((text, style), rest)


console = _PlainConsole()
_errors = _PlainConsole(stderr=True)
_quiet = False


def be_quiet() -> None:
    """Print results and errors only from here on: neither notes nor progress."""
    global _quiet
    _quiet = True


def progress_console() -> Console:
    """Return the console of what shows progress."""
    return _PlainConsole(quiet=True) if _quiet else console


def folded_table(*columns: str, **options: Any) -> Table:
    """Return a table whose texts are folded on a narrow terminal, never cut."""
    return Table(*(Column(name, overflow="fold") for name in columns), **options)


def print_result(text: str) -> None:
    """Print a result on stdout: no line is wrapped, and markup is not interpreted."""
    console.print(text, soft_wrap=True, highlight=False)


def print_note(text: str) -> None:
    """Print on stderr what is neither a result nor an error."""
    if _quiet:
        return
    _errors.print(text, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar while the block runs; yields report(what is being done, steps done, steps in all)."""
    what = TextColumn("{task.description}", markup=False)
    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=progress_console(), transient=True) as bars:
        bar = bars.add_task("preparing", total=None)

        def report(what: str, done: int, total: int) -> None:
            bars.update(bar, description=what, completed=done, total=total)

        yield report


@contextmanager
def user_errors(kept: str = "") -> Iterator[None]:
    """Print errors that a user can fix and exit with status 2; after Ctrl-C, SIGTERM or SIGHUP exit with status 130.

    Any other error is a bug and keeps its traceback.

    Args:
        kept: printed after Ctrl-C: what remains, and how to resume.
    """
    stop_on_signals()
    try:
        yield
    except KeyboardInterrupt:
        raise _stopped(kept) from None
    except (ValueError, OSError, UserError) as error:
        if terminal_closed(error):
            raise typer.Exit(STOPPED) from None
        if is_stopping():
            raise _stopped(kept) from None
        _errors.print(styled("bold red", "error", f": {_message(error)}"), highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def _stopped(kept: str) -> typer.Exit:
    _errors.print(styled("yellow", "\nstopped", f": {kept}" * bool(kept)), soft_wrap=True)
    return typer.Exit(STOPPED)


def _message(error: Exception) -> str:
    """Return an error for users, each of its lines cut to a length that can be read."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        place = error.filename or "while writing"
        return f"no space left on the device ({place}): free some space and rerun the command; finished work is kept"
    lines = str(error).splitlines()
    return "\n".join(line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..." for line in lines)
