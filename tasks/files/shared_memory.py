"""Memory that the processes of a user on one machine share by a key: written once, sealed, freed with its last user.

It is a file without a name (`memfd_create`), so a killed process leaves nothing behind, no disk is written to, and the
size of /dev/shm is no bound. Each process that maps one keeps it open under a mark, an empty file KEY.PID-DESCRIPTOR,
by which others find it in /proc. Sealed means that nobody can write to it, the process that made it included.

- A key means one content: every process that maps it gets what the first one wrote.
- A map is private: what a process writes to it by mistake, others do not see.
- Marks of processes that have ended are removed by the next one that looks for their key.
"""

import fcntl
import mmap
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tasks.files.locks import locked
from tasks.files.temporary import temporary_folder

#: Only Linux has all that is needed.
IS_AVAILABLE = sys.platform == "linux" and hasattr(os, "memfd_create")
_MARK = re.compile(r".+\.(\d+)-(\d+)")


def shared_memory(key: str, create: Callable[[], Iterable[memoryview]]) -> mmap.mmap:
    """Return a map of the memory with this key: another process holds it, or `create` makes what is written to it.

    One process creates while others that ask for the same key wait.

    Args:
        key: letters, digits and `-`; it must determine the content.
        create: returns the parts of the content, in order; they are copied.

    Raises:
        OSError: if the system cannot share memory; `create` may have been called.
        ValueError: if the folder for temporary files has no locks.

    Example:
        >>> mapped = shared_memory("digits", lambda: [memoryview(b"0123456789")])
        >>> bytes(mapped[:3])
        b'012'
    """
    if not IS_AVAILABLE:
        raise OSError(f"{sys.platform} has no memory files")
    folder = temporary_folder()
    key = f"{key}-{os.stat('/proc/self/ns/pid').st_ino}"  # containers that share the folder number their own processes
    with locked(folder / f"{key}.lock"):
        descriptor = _found(folder, key)
        if descriptor is None:
            descriptor = _written(key, create())
        return _mapped(folder, key, descriptor)


def _found(folder: Path, key: str) -> int | None:
    """Return a descriptor of the memory that a process holds; the marks of those that have ended are removed."""
    for link in [_holder(mark, key) for mark in folder.glob(f"{key}.*-*")]:
        with suppress(OSError):
            if link:
                return os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _holder(mark: Path, key: str) -> str:
    """Return the path of the memory in /proc; "" if its process has ended, or may not be looked into."""
    if match := _MARK.fullmatch(mark.name):
        link = f"/proc/{match[1]}/fd/{match[2]}"
        with suppress(OSError):
            # Else it is another process of this number, which may have anything open there.
            if os.readlink(link) == f"/memfd:{_name(key)} (deleted)":
                return link
    mark.unlink(missing_ok=True)
    return ""


def _written(key: str, parts: Iterable[memoryview]) -> int:
    descriptor = os.memfd_create(_name(key), os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in parts:
            left = part.cast("B")
            while left:  # one call writes 2 GiB at most
                left = left[os.write(descriptor, left) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _mapped(folder: Path, key: str, descriptor: int) -> mmap.mmap:
    """Map the memory, and keep it open for others until the map is dropped."""
    try:
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
        mark = folder / f"{key}.{os.getpid()}-{descriptor}"
        mark.touch()
    except BaseException:
        os.close(descriptor)
        raise
    weakref.finalize(mapped, _leave, mark, descriptor, os.getpid())
    return mapped


def _leave(mark: Path, descriptor: int, owner: int) -> None:
    if os.getpid() == owner:  # a fork has descriptors of its own
        os.close(descriptor)
        with suppress(OSError):
            mark.unlink()


def _name(key: str) -> str:
    return f"lines-{key}"
