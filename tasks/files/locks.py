"""Lock files: one holder at a time, on NFS among machines too; a killed process leaves none locked."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def locked(path: Path, busy: Exception | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which stays; other threads of this process are excluded too.

    Args:
        path: a file in an existing folder.
        busy: the error to raise if another one holds it; None waits instead.

    Raises:
        ValueError: if the file system has no locks.
    """
    try:
        # No fallback: a lock that is only a file survives a kill.
        held = FileLock(path, blocking=busy is None, fallback_to_soft=False).acquire()
    except Timeout as error:
        assert busy is not None
        raise busy from error
    except OSError as error:
        explain_no_locks(path, error)
        raise
    with held:
        yield


def explain_no_locks(path: Path, error: OSError) -> None:
    """Raise ValueError if locking `path` failed because its file system has no locks."""
    if error.errno in _NO_LOCKS:
        raise ValueError(
            f"{path}: cannot be locked ({error.strerror}): mount NFS with locks (version 4, or 3 with lockd, not "
            "with `nolock`), or use a folder elsewhere"
        ) from error
