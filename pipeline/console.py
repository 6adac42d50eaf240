"""What the command says to people: one console, and errors without tracebacks."""

import errno
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

#: Exit status after Ctrl-C, as shells have it.
STOPPED = 130


def plain(text: str) -> str:
    """Without control characters, by which what comes from a spec, a file or a log would steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


class _PlainConsole(Console):
    """Control characters come from rich alone, never from what is printed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


console = _PlainConsole()
_errors = _PlainConsole(stderr=True)


def print_result(text: str) -> None:
    """Tell a result as it is: no line broken, nothing taken for markup."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def print_note(text: str) -> None:
    """Tell something that is neither a result nor an error."""
    _errors.print(escape(text), highlight=False, soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar while the block runs; yields report(what is being done, steps done, steps in all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("preparing", total=None)

        def report(what: str, done: int, total: int) -> None:
            bars.update(bar, description=escape(what), completed=done, total=total)

        yield report


def stop_on_sigterm() -> None:
    """Have SIGTERM, which `kill` and schedulers send, end the command as Ctrl-C does; a second one is ignored.

    Only the main thread may set this; elsewhere nothing is changed.
    """

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


@contextmanager
def user_errors(kept: str = "") -> Iterator[None]:
    """What a user can put right is told in a line or two, with status 2; anything else is our fault, shown whole.

    Args:
        kept: what remains after Ctrl-C, and what to do then.
    """
    stop_on_sigterm()
    try:
        yield
    except KeyboardInterrupt:
        _errors.print("\n[yellow]stopped[/]" + f": {escape(kept)}" * bool(kept), soft_wrap=True)
        raise typer.Exit(STOPPED) from None
    except (ValueError, OSError, RuntimeError) as error:
        if not _ours(error):
            raise
        _errors.print("[bold red]error[/]:", escape(_told(error)), highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def _ours(error: Exception) -> bool:
    from pipeline.errors import LockedError, WorkersLostError

    return isinstance(error, ValueError | OSError | LockedError | WorkersLostError)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = error.filename or "while writing"
        return f"no space left on the device ({where}): free some and run the command again; what was done is kept"
    return str(error)
