"""Folders and files of images on disk: links are followed, hidden and system files are skipped, at every depth."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

#: Left in folders by macOS, Windows, NAS systems, file systems and Python; compared without case.
_SYSTEM = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
    }
)
#: Dead links that an error names.
_NAMED = 5


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is the system's or a program's, and so no part of a data set.

    Example:
        >>> [name for name in (".DS_Store", "._1.png", "__MACOSX", "Thumbs.db", "cat") if not is_hidden(name)]
        ['cat']
    """
    return name.startswith(".") or name.casefold() in _SYSTEM


class FileTree:
    """A data set's folder. Links that lead nowhere are collected while it is listed; `check` refuses them."""

    def __init__(self, root: Path) -> None:
        """Take the folder, which is not read yet."""
        self.root = root
        self._dead: list[str] = []

    def folders(self, parent: Path) -> list[Path]:
        """Return the folders in `parent`, sorted by name."""
        return [parent / name for name in self._scan(os.fspath(parent))[0]]

    def files(self, folder: Path) -> list[Path]:
        """Return all files below `folder` in the order of torchvision's ImageFolder; hidden ones are left out."""
        return [Path(top, name) for top, names in sorted(self.walk(folder)) for name in names if not is_hidden(name)]

    def walk(self, folder: Path) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder from `folder` down, and the sorted names of all its files, hidden ones too.

        Raises:
            ValueError: if a folder cannot be read.
        """
        outer = () if folder == self.root else (os.path.realpath(self.root),)
        yield from self._walk(os.fspath(folder), outer)

    def _walk(self, top: str, outer: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
        real = os.path.realpath(top)
        if any(path == real or path.startswith(real.rstrip(os.sep) + os.sep) for path in outer):
            logger.warning("%s: left out: this link leads to a folder that it is in", top)
            return
        folders, files = self._scan(top)
        yield top, files
        for name in folders:
            yield from self._walk(os.path.join(top, name), (*outer, real))

    def _scan(self, top: str) -> tuple[list[str], list[str]]:
        """Return the sorted names of folders and files."""
        try:
            with os.scandir(top) as entries:
                modes = {entry.name: self._mode(entry) for entry in entries}
        except OSError as error:  # passed over, a class would be missing from the prompts
            raise ValueError(
                f"{top}: this folder cannot be read ({error.strerror}): mount its disk, or give yourself access"
            ) from error
        folders = sorted(name for name, mode in modes.items() if stat.S_ISDIR(mode) and not is_hidden(name))
        return folders, sorted(name for name, mode in modes.items() if stat.S_ISREG(mode))

    def _mode(self, entry: os.DirEntry[str]) -> int:
        """Return whether an entry is a file or a folder, as `stat` does; 0 for a dead link."""
        if not entry.is_symlink():
            return stat.S_IFDIR if entry.is_dir() else stat.S_IFREG if entry.is_file() else 0
        try:
            return entry.stat().st_mode
        except OSError:  # no target, a circle, or a target on a disk that is away
            if not is_hidden(entry.name):
                self._dead.append(entry.path)
            return 0

    def check(self) -> None:
        """Refuse the dead links among all that was listed so far.

        Raises:
            ValueError: if there is one; the first are named.
        """
        if dead := sorted(set(self._dead)):
            more = f" and {len(dead) - _NAMED} more" if dead[_NAMED:] else ""
            raise ValueError(
                f"{self.root}: {len(dead)} links lead nowhere ({', '.join(dead[:_NAMED])}{more}): mount or restore "
                "what they lead to, or remove them"
            )
