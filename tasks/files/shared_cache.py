"""A cache that machines share, behind the local one: a folder of an object store, or of a disk that all of them mount.

It saves work and nothing else: where it does not answer, refuses, or holds something damaged, a warning says so, and
what was asked of it is made here.
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

#: Parts of the local cache whose entries are named by their whole content, wherever they are made.
_PARTS = ("images/", "heads/", "statistics/")
Use = Literal["read", "write"]
#: What has failed at which place: it is not tried again by this process.
_given_up: set[tuple[Use, str]] = set()


def shared_cache(use: Use) -> StoreFolder | None:
    """The place that `$LINES_SWEEP_SHARED_CACHE` names; None where it names none, or where this has failed before."""
    url = os.environ.get(VARIABLE, "")
    return None if not url or (use, url) in _given_up else _open(url)


@cache
def _open(url: str) -> StoreFolder | None:
    with tolerated("read", url), tolerated("write", url):
        return StoreFolder.open(url)
    return None


@contextmanager
def tolerated(use: Use, url: str) -> Iterator[None]:
    """Trouble with the shared cache is told once, and never ends a run."""
    try:
        yield
    except DamagedError as error:
        logger.warning("%s: ignored: %s", VARIABLE, error)
    except (RemoteError, OSError, ValueError, tarfile.TarError) as error:
        if (use, url) not in _given_up:
            logger.warning("%s: this process does not %s there any more: %s", VARIABLE, use, error)
        _given_up.add((use, url))


def take(entry: str, path: Path) -> bool:
    """Get an entry of the cache, a file or a folder, from the shared one; False where it is not to be had.

    Args:
        entry: its path in the local cache.
        path: where it is written; its folder exists, and may be used for more.
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
    """Put an entry that was made here into the shared cache."""
    place = shared_cache("write")
    if place is None or not entry.startswith(_PARTS):
        return
    packed, sealed = (path.with_name(f"{path.name}.{kind}-{os.getpid()}") for kind in ("packed", "sealed"))
    with tolerated("write", place.url):
        try:
            with tarfile.open(packed, "w") as tar:
                tar.add(path, path.name, filter=_plain)
            seal_file(packed, sealed)
            place.upload(sealed, f"{entry}.tar")
        finally:
            packed.unlink(missing_ok=True)
            sealed.unlink(missing_ok=True)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of this machine: no owner, no times."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
