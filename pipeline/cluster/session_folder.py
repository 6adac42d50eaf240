"""The folder of a local Ray's session: short enough for its sockets, and closed to other users. Does not import Ray.

Ray itself takes TMPDIR or /tmp, and makes `ray/` and all below it open to everybody: other users of the machine could
read the logs, and remove or replace sockets and files.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHOICE = "RAY_TMPDIR"
_SHORT = "/tmp"
#: Bytes of the path of a socket, without the zero at its end.
_SOCKET = 107 if sys.platform == "linux" else 103
#: The longest path that Ray makes for a socket, below the folder.
_BELOW = "/ray/session_2026-11-28_23-59-59_999999_4194304/sockets/plasma_store"
#: Bytes of the longest folder.
LONGEST = _SOCKET - len(_BELOW)


@contextmanager
def private_folder() -> Iterator[None]:
    """Make the Ray that is started within use `session_folder`.

    Raises:
        ValueError: if RAY_TMPDIR is too long, or not a folder that can be written.
    """
    before = os.environ.get(_CHOICE)
    os.environ[_CHOICE] = str(session_folder())
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CHOICE]
        else:
            os.environ[_CHOICE] = before


def session_folder() -> Path:
    """Return the folder of Ray's sessions, which is made if it is missing.

    That is RAY_TMPDIR if it is set; else `lines-UID` in TMPDIR, or in /tmp if TMPDIR is too long or cannot be used. It
    has mode 0700. If another user has taken the name, it is a folder with a random name.

    Raises:
        ValueError: if RAY_TMPDIR is too long, or not a folder that can be written.
    """
    if chosen := os.environ.get(_CHOICE):
        return _checked(Path(chosen).absolute())
    name = f"lines-{os.getuid()}"
    for parent in dict.fromkeys((os.environ.get("TMPDIR") or _SHORT, _SHORT)):
        folder = Path(parent).absolute() / name
        if _size(folder) <= LONGEST and _own(folder):
            return folder
    return Path(tempfile.mkdtemp(prefix="lines-", dir=_SHORT))


def _checked(folder: Path) -> Path:
    if _size(folder) > LONGEST:
        raise ValueError(
            f"{_CHOICE}: {folder} has {_size(folder)} bytes, but the paths of Ray's sockets leave {LONGEST}: set it to "
            "a shorter folder, or unset it, and a folder in /tmp is used"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ValueError(f"{_CHOICE}: {folder}: {error.strerror}: set it to a folder that can be written") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{_CHOICE}: {folder}: is not writable: set it to a folder that can be written")
    return folder


def _own(folder: Path) -> bool:
    """Make a folder that only this user can enter; returns False if the name is another user's or a link."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        folder.chmod(0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _size(folder: Path) -> int:
    return len(os.fsencode(folder))
