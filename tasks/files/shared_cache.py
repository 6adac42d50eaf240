"""A cache that machines share behind the local one: a folder of an object store, or of a disk that all of them mount.

It only saves work. If it does not answer, refuses, or holds something damaged, a warning is logged and the entry is
made here.
"""

import logging
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

from tasks.files.checksums import DamagedError, check_file, seal_file
from tasks.files.object_store import StoreFolder
from tasks.files.store_errors import RemoteError

VARIABLE = "LINES_SWEEP_SHARED_CACHE"
logger = logging.getLogger(__name__)

#: Parts of the local cache whose entries are named by their whole content on every machine.
_PARTS = ("images/", "heads/", "statistics/")
Use = Literal["read", "write"]
#: Uses that failed, with their URL; this process does not try them again.
_given_up: set[tuple[Use, str]] = set()


def shared_cache(use: Use) -> StoreFolder | None:
    """Return the folder that `$LINES_SWEEP_SHARED_CACHE` names; None without it, or if this use of it has failed."""
    url = os.environ.get(VARIABLE, "")
    return None if not url or (use, url) in _given_up else _open(url)


@cache
def _open(url: str) -> StoreFolder | None:
    with tolerated("read", url), tolerated("write", url):
        return StoreFolder.open(url)
    return None


@contextmanager
def tolerated(use: Use, url: str) -> Iterator[None]:
    """Turn a failure of the shared cache into a warning; after the first one, this use of it stops."""
    try:
        yield
    except DamagedError as error:
        logger.warning("%s: ignored: %s", VARIABLE, error)
    except (RemoteError, OSError, ValueError, tarfile.TarError) as error:
        if (use, url) not in _given_up:
            logger.warning("%s: this process does not %s there any more: %s", VARIABLE, use, error)
        _given_up.add((use, url))


def take(entry: str, path: Path) -> bool:
    """Copy an entry, a file or a folder, from the shared cache; return whether it was there.

    Args:
        entry: its path in the local cache.
        path: the target; its folder exists, and holds temporary files during the copy.
    """
    place = shared_cache("read")
    if place is None or not entry.startswith(_PARTS):
        return False
    with tolerated("read", place.url):
        return _take(place, f"{entry}.tar", path)
    return False


def _take(place: StoreFolder, name: str, path: Path) -> bool:
    if place.info(name) is None:
        return False
    packed, unpacked = (path.with_name(f"{path.name}.{kind}") for kind in ("packed", "unpacked"))
    place.download(name, packed)
    try:
        with packed.open("rb") as file:
            check_file(file)
            with tarfile.open(fileobj=file, mode="r|") as tar:
                tar.extractall(unpacked, filter="data")
    except DamagedError as error:
        raise DamagedError(f"{place.url}/{name}: {error}") from error
    finally:
        packed.unlink()
    (unpacked / path.name).rename(path)
    return True


def give(entry: str, path: Path) -> None:
    """Copy an entry of the local cache to the shared one."""
    place = shared_cache("write")
    if place is None or not entry.startswith(_PARTS):
        return
    packed, sealed = (path.with_name(f"{path.name}.{kind}-{os.getpid()}") for kind in ("packed", "sealed"))
    with tolerated("write", place.url):
        try:
            with tarfile.open(packed, "w") as tar:
                tar.add(path, path.name, filter=_anonymous)
            seal_file(packed, sealed)
            place.upload(sealed, f"{entry}.tar")
        finally:
            packed.unlink(missing_ok=True)
            sealed.unlink(missing_ok=True)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove owner and times: equal entries of two machines give equal bytes."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
