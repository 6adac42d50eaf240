"""Completion in the shell (`lines --install-completion`): runs, and the arms and experts of a run on the same line.

Nothing here imports numpy, Arrow or torch, and no error reaches the terminal while a user types.
"""

import contextlib
import glob
import io
import os
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import typer

from pipeline.records.header import FILE_NAME, read_header

#: Set by the shell while it completes (typer's name for the command `lines`).
VARIABLE = "_LINES_COMPLETE"
#: What bash need not quote; `:` and `=` would end a word.
_UNSAFE = re.compile(r"([^\w@%+,./\n-])")


def complete_run(incomplete: str) -> list[str]:
    """Return the run folders that begin as typed: in the folder that is named so far, and one level deeper."""
    begin = glob.escape(incomplete)
    found = (path for levels in ("*", "*/*") for path in glob.glob(f"{begin}{levels}/{FILE_NAME}"))
    return sorted(path.removesuffix(f"/{FILE_NAME}") for path in found)


def complete_arm(ctx: typer.Context) -> list[str]:
    """Return the arms in the specs of the runs on this line."""
    return list(dict.fromkeys(arm for spec in _specs(ctx) for arm in spec["arms"]))


def complete_expert(ctx: typer.Context) -> list[str]:
    """Return the experts in the specs of the runs on this line."""
    return list(dict.fromkeys(expert for spec in _specs(ctx) for expert in spec["experts"]))


def _specs(ctx: typer.Context) -> Iterable[dict[str, Any]]:
    """Yield the spec of each run on this line; an option without its value leaves the arguments in `ctx.args`."""
    named = (ctx.params.get("run"), *(ctx.params.get("runs") or ()), *ctx.args)
    for place in filter(None, named):
        if (header := read_header(Path(place))) is not None:
            yield header["spec"]


def complete(app: typer.Typer) -> NoReturn:
    """Print what fits the words in the environment; an error, such as a damaged journal, ends it without a word.

    Bash takes what is printed as it is, so characters that it would interpret are quoted, unless the user has begun a
    quotation.
    """
    status: str | int | None = 1
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(Exception):
        try:
            app(prog_name="lines", complete_var=VARIABLE)
        except SystemExit as end:
            status = end.code
    text = printed.getvalue()
    if os.environ[VARIABLE] == "complete_bash" and not _is_quoted(os.environ.get("COMP_WORDS", "")):
        text = _UNSAFE.sub(r"\\\1", text)
    sys.stdout.write(text)
    raise SystemExit(status)


def _is_quoted(words: str) -> bool:
    """Return whether a quotation is open at the end of the words."""
    try:
        shlex.split(words)
    except ValueError:
        return True
    return False
