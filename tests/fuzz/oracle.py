"""What counts as right: accepted, or refused by an error that a user can fix and that names the field or the file."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field

import typer

from fuzz.sandbox import Fault
from pipeline.console import user_errors

#: Characters of the longest message that a user can be expected to read.
_LONGEST = 20_000
#: Exit status of an error that a user can fix.
_USER_ERROR = 2


@dataclass
class Heard:
    """What a call printed and logged.

    Attributes:
        status: exit status of the command; 0 without an error.
        output: everything on stdout and stderr.
        warnings: lines of the log at level warning or above.
    """

    status: int = 0
    output: str = ""
    warnings: list[str] = field(default_factory=list)


@contextmanager
def heard() -> Iterator[Heard]:
    """Run a block as a command does, and keep its status, its output and its warnings; other errors go on."""
    found, printed, root = Heard(), io.StringIO(), logging.getLogger()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.warnings.append(record.getMessage())  # type: ignore[method-assign]
    root.addHandler(handler)
    try:
        with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with user_errors():
                yield found
    except typer.Exit as end:
        found.status = end.exit_code
    finally:
        root.removeHandler(handler)
        found.output = printed.getvalue()


def verdict(call: Callable[[], object], names: Sequence[str]) -> str:
    """Run `call` and return "accepted" or "refused"; the message of an error must hold one of `names`.

    Raises:
        Fault: if the error's status, length or content is wrong.
    """
    with heard() as found:
        call()
    if found.status == 0:
        return "accepted"
    if found.status != _USER_ERROR:
        raise Fault("status", f"exit status {found.status}: {_first(found.output)}")
    return refused(found.output, names)


def refused(message: str, names: Sequence[str]) -> str:
    """Return "refused" for the message of an error that holds one of `names`.

    Raises:
        Fault: if the message is too long, or holds none of the names.
    """
    if len(message) > _LONGEST:
        raise Fault("message", f"{len(message)} characters: {_first(message)}")
    flat = "".join(message.split())
    if not any("".join(name.split()) in flat for name in names):
        raise Fault("message", f"names neither file nor field: {_first(message)}")
    return "refused"


def _first(text: str) -> str:
    return " ".join(text.split())[:300]
