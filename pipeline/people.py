"""What the command says to people: one console, and errors without tracebacks."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

#: Exit status after Ctrl-C, as shells have it.
STOPPED = 130

console = Console()
_errors = Console(stderr=True)


def say(text: str) -> None:
    """Tell something that is neither a result nor an error."""
    _errors.print(escape(text), highlight=False, soft_wrap=True)


@contextmanager
def errors_for_people(kept: str = "") -> Iterator[None]:
    """What a user can put right is told in a line or two, with status 2; anything else is our fault, shown whole.

    Args:
        kept: what remains after Ctrl-C, and what to do then.
    """
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
    from pipeline.append_log import LockedError
    from pipeline.ray_pool import WorkersLostError

    return isinstance(error, ValueError | OSError | LockedError | WorkersLostError)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = error.filename or "while writing"
        return f"no space left on the device ({where}): free some and run the command again; what was done is kept"
    return str(error)
