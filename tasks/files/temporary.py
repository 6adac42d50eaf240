"""A folder for cache entries that cannot be written in their place, which is removed after its last process.

Each process that uses it holds a shared lock on a file in it, so a process that locks it exclusively is the last one.
The processes of a user share it: N workers of a machine decode a data set once, as in the cache.
"""

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

_LOCK = "in-use.lock"


@cache
def temporary_folder() -> Path:
    """Return `lines-cache-UID` in the folder for temporary files, which this process keeps until it ends.

    If another user has taken the name, it is a folder with a random name.

    Raises:
        OSError: if it cannot be made.
    """
    folder = _shared_folder()
    while (lock := _hold(folder)) is None:
        if folder.exists() and not _is_own(folder):
            folder = Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
    atexit.register(_leave, folder, lock, os.getpid())
    return folder


def remove_unused() -> None:
    """Remove the folder of this user if no process uses it: workers that were killed cannot do it."""
    folder = _shared_folder()
    with suppress(OSError):
        _leave(folder, os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW), os.getpid())


def _shared_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"lines-cache-{os.getuid()}"


def _is_own(folder: Path) -> bool:
    """Whether only this user can enter a folder, and it is no link."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _hold(folder: Path) -> int | None:
    """Return a descriptor that holds a shared lock on the folder; None if it was removed, or is another user's."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    with suppress(FileNotFoundError):
        if not _is_own(folder):
            return None
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), (folder / _LOCK).stat()):
                return descriptor
        os.close(descriptor)
    return None


def _leave(folder: Path, lock: int, owner: int) -> None:
    """Close the lock, and remove the folder if no other process holds it."""
    if os.getpid() != owner:  # a fork shares the lock
        return
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed first: another process may begin a new folder of this name meanwhile.
        removed = folder.rename(f"{folder}.removed-{owner}")
        shutil.rmtree(removed, ignore_errors=True)
    os.close(lock)
