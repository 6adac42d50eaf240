"""A folder that this process cannot write, although root may write everywhere."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VERSION_3 = 0x20080522
#: Linux's CAP_DAC_OVERRIDE: permission to ignore the modes of files.
_IGNORES_MODES = 1 << 1
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Take all permissions to write from a folder and what is below it, and root's to ignore that from this thread."""
    below = [folder, *folder.rglob("*")]
    for path in below:
        path.chmod(path.stat().st_mode & ~0o222)
    header, found = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert _libc.capget(header, found) == 0, os.strerror(ctypes.get_errno())
    fewer = (ctypes.c_uint32 * 6)(*found)
    fewer[0] &= ~_IGNORES_MODES
    assert _libc.capset(header, fewer) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        _libc.capset(header, found)
        for path in below:
            path.chmod(path.stat().st_mode | 0o200)
