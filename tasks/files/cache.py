"""The on-disk cache of decoded images and text heads: keyed by content, written atomically, locked across processes."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.files import shared_cache as shared
from tasks.files.locks import locked
from tasks.files.object_store import is_url

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REMEDY = "set LINES_SWEEP_CACHE to another folder"


def cache_root() -> Path:
    """`$LINES_SWEEP_CACHE`, or else ~/.cache/lines-sweep.

    Raises:
        ValueError: it is a URL.
    """
    place = os.environ.get("LINES_SWEEP_CACHE") or "~/.cache/lines-sweep"
    if is_url(place):
        raise ValueError(
            f"LINES_SWEEP_CACHE={place}: must be a folder of this machine; a cache that machines share is "
            f"{shared.VARIABLE}"
        )
    return Path(place).expanduser()


def digest(parts: Iterable[bytes | str]) -> str:
    """blake2b of the parts, 32 hexadecimal digits; each part's length is hashed too, so that no two lists collide."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def cached(path: Path, create: Callable[[Path], None]) -> Path:
    """Return `path` (a file or a folder), made by `create(partial)` where it is not there yet.

    `create` writes to a temporary place beside `path`, which is then renamed: a reader sees all of it or nothing. One
    process at a time creates (a lock file), the others wait and then find it; a killed one leaves nothing in the way.
    Where machines share a cache, it is looked for there first, and put there once it is made.

    Raises:
        ValueError: the cache folder cannot be made, or there is no space left; the partial result is removed.
    """
    if path.exists():
        return path
    entry = path.relative_to(root).as_posix() if path.is_relative_to(root := cache_root()) else ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cache {path.parent}: cannot be made ({error.strerror}); {_REMEDY}") from error
    with _full_disk_reported(path.parent), locked(path.with_name(path.name + ".lock")):
        if path.exists():
            return path
        # What is left of a killed process: that the lock is free says that it is gone.
        for stale in path.parent.glob(path.name + ".partial-*"):
            shutil.rmtree(stale, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=path.name + ".partial-", dir=path.parent))
        try:
            taken = shared.take(entry, scratch / path.name)
            if not taken:
                create(scratch / path.name)
            (scratch / path.name).rename(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if not taken:
        shared.give(entry, path)
    return path


@contextmanager
def _full_disk_reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ValueError(f"cache {folder}: no space left ({error.strerror}); free some, or {_REMEDY}") from error
