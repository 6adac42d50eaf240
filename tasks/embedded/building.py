"""The command line of what builds embedded models and prompts in the cache."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from tasks.registry import near

#: Builds the missing parts of some names; the folder holds files, in place of the network.
Build = Callable[[Console, Sequence[str], Path | None], None]


def say(console: Console, line: str) -> None:
    """Print a line as it is, whatever its length and brackets."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def run_command(about: str | None, known: Sequence[str], folder: tuple[str, str], build: Build) -> None:
    """Build the names on the command line, or all; exit with status 2 and a message if one fails.

    Args:
        about: what the command is for.
        known: the names that there are.
        folder: the option of the folder of files, and its help.
        build: builds them.
    """
    parser = argparse.ArgumentParser(description=about)
    option, meaning = folder
    parser.add_argument(option, dest="folder", type=Path, metavar="DIR", help=meaning)
    parser.add_argument("names", nargs="*", default=known, metavar="NAME", help=f"of {', '.join(known)}; default: all")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in known]:
        parser.error(f"{unknown[0]}: unknown name; {near(unknown[0], known)}")
    console = Console()
    try:
        build(console, args.names, args.folder)
    except ValueError as error:
        say(console, f"error: {error}")
        raise SystemExit(2) from error
