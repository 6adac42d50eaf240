"""The on-disk cache of what is made once: decoded images, text heads, statistics, fetched models; keyed by content."""

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
    """Return `$LINES_SWEEP_CACHE`, or ~/.cache/lines-sweep.

    Raises:
        ValueError: if it is a URL.
    """
    place = os.environ.get("LINES_SWEEP_CACHE") or "~/.cache/lines-sweep"
    if is_url(place):
        raise ValueError(
            f"LINES_SWEEP_CACHE={place}: must be a folder of this machine; a cache that machines share is "
            f"{shared.VARIABLE}"
        )
    return Path(place).expanduser()


def digest(parts: Iterable[bytes | str]) -> str:
    """Return 32 hexadecimal digits of blake2b over the parts and their lengths, so that no two lists collide."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def cached(path: Path, create: Callable[[Path], None]) -> Path:
    """Return `path`, a file or a folder, and make it by `create(partial)` if it does not exist.

    `create` writes to a temporary path in the same folder, which is then renamed, so a reader sees all of it or
    nothing. A lock file lets one process create while the others wait; what a killed process left is removed. If
    machines share a cache, the entry is looked up there first, and stored there once it is made.

    Raises:
        ValueError: if the cache folder cannot be made, or no space is left.

    Example:
        >>> head = cached(cache_root() / "heads" / f"{key}.pt", lambda partial: torch.save(make_head(), partial))
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
        # Left by killed processes: the lock is free, so they no longer run.
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
