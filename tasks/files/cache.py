"""The on-disk cache of what is made once: decoded images, text heads, statistics, fetched models; keyed by content."""

import errno
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tasks.files import shared_cache as shared
from tasks.files.atomic import PARTIAL, sync, write_whole
from tasks.files.locks import locked
from tasks.files.manifest import damage, describe_files, manifest_path
from tasks.files.object_store import is_url
from tasks.files.temporary import temporary_folder

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
#: Folders of the cache with models that are built here.
_BUILT = ("language", "vision")
_REMEDY = "set LINES_SWEEP_CACHE to another folder"
logger = logging.getLogger(__name__)


class UnwritableError(ValueError):
    """The folder of an entry cannot be written by this user."""


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


def is_cached(path: Path) -> bool:
    """Return whether `cached` would return `path` without making it: it exists, and its files are what was written."""
    return not damage(path)


def cached(path: Path, create: Callable[[Path], None]) -> Path:
    """Return `path`, a file or a folder, and make it by `create(partial)` if it does not exist or is damaged.

    The files are compared with the hashes of their manifest, once in a process. An entry that differs, is torn, or has
    no manifest (older versions wrote none) is made again, with a warning.

    `create` writes to a temporary path in the same folder, which is forced to the disk and renamed, so a reader sees
    all of it or nothing. A lock file lets one process create while the others wait; what a killed process left is
    removed. If machines share a cache, the entry is looked up there first, and stored there once it is made.

    If this user cannot write there (a cache that others fill), an entry that is damaged or has no manifest is made in a
    temporary folder instead, whose path is returned; the folder is removed with its last process.

    Raises:
        UnwritableError: if it does not exist, and this user cannot write there.
        ValueError: if the cache folder cannot be made, or no space is left.

    Example:
        >>> head = cached(cache_root() / "heads" / f"{key}.pt", lambda partial: torch.save(make_head(), partial))
    """
    if is_cached(path):
        return path
    entry = path.relative_to(root).as_posix() if path.is_relative_to(root := cache_root()) else ""
    try:
        return _made(path, entry, create)
    except UnwritableError:
        if not entry or not os.path.lexists(path):
            raise
        return _made(_instead(root) / entry, entry, create)


@cache
def _instead(root: Path) -> Path:
    """Return the folder for entries that cannot be replaced in the cache `root`; its first use is a warning."""
    try:
        folder = temporary_folder()
    except OSError as error:
        raise ValueError(f"cache {root}: cannot be written, nor can a temporary folder ({error}); {_REMEDY}") from error
    logger.warning(
        "cache %s: cannot be written by this user, and entries there are damaged or have no manifest (older versions "
        "wrote none): they are made in %s, which is removed at the end; to keep them, run the command once as a user "
        "who can write there, or %s",
        root,
        folder,
        _REMEDY,
    )
    return folder


def _made(path: Path, entry: str, create: Callable[[Path], None]) -> Path:
    """Make the entry named `entry` at `path`, unless another process has just done so."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cache {path.parent}: cannot be made ({error.strerror}); {_REMEDY}") from error
    with _reported(path.parent), locked(path.with_name(path.name + ".lock")):
        if not (wrong := damage(path)):
            return path
        if os.path.lexists(path):
            logger.warning("cache %s: %s; it is made again", path, wrong)
        # Left by killed processes: the lock is free, so they no longer run.
        for stale in path.parent.glob(path.name + ".partial-*"):
            shutil.rmtree(stale, ignore_errors=True)
        for stale in path.parent.glob(f"{manifest_path(path).name}.*{PARTIAL}"):
            stale.unlink(missing_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=path.name + ".partial-", dir=path.parent))
        try:
            taken = shared.take(entry, scratch / path.name)
            if not taken:
                create(scratch / path.name)
            _put(scratch / path.name, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if not taken:
        shared.give(entry, path)
    return path


def _put(new: Path, path: Path) -> None:
    """Move a new entry to its place, with its manifest; a kill at any moment leaves an entry that is made again."""
    manifest = describe_files(new)
    sync(new)
    manifest_path(path).unlink(missing_ok=True)
    if os.path.lexists(path):  # moved, not deleted: processes may have its files mapped
        path.rename(new.with_name(f"{new.name}.before"))
    new.rename(path)
    write_whole(manifest_path(path), manifest)


def built_place(name: str) -> Path:
    """Return where a model or prompts that are built here lie, or would lie."""
    places = [cache_root() / kind / name for kind in _BUILT]
    return next((place for place in places if place.is_dir()), places[0])


def built(name: str) -> Path | None:
    """Return the folder of the model or prompts `name` that `make bases` or `make rewarded-soups` builds; None before.

    One without a manifest is of an older version, and taken as it is: its prompts come from the network.

    Raises:
        ValueError: if it is damaged.
    """
    path = built_place(name)
    if manifest_path(path).exists() and os.path.lexists(path) and (wrong := damage(path)):
        raise ValueError(f"cache {path}: {wrong}; `make bases` or `make rewarded-soups` builds it again")
    return path if path.is_dir() else None


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ValueError(f"cache {folder}: no space left ({error.strerror}); free some, or {_REMEDY}") from error
        if error.errno in _CLOSED and Path(str(error.filename)).is_relative_to(folder):
            raise UnwritableError(f"cache {folder}: cannot be written ({error.strerror}); {_REMEDY}") from error
        raise
