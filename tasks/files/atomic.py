"""Files that are replaced in one step: a reader finds the old content or the new, never a part."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Suffix of files that are being written; a killed process may leave one.
PARTIAL = ".partial"
#: From this many files on, one `sync` of the machine takes less time than one for each file.
_MANY = 64


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`, for this thread only, and rename it to `path` at the end.

    The content is on the disk before the rename, and the rename before this returns: after a power cut the file is the
    old one or the new one too. A file that a power cut may lose needs neither wait: `durable=False`.

    Raises:
        OSError: if it cannot be written; an existing file stays as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}{PARTIAL}")
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes, durable: bool = True) -> Path:
    """Replace a file in one step, and return its path; text is written as UTF-8. For `durable` see `whole_file`.

    Raises:
        OSError: if it cannot be written; an existing file stays as it was.
    """
    with whole_file(path, durable) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def sync(path: Path) -> None:
    """Force a file, or a folder with all that it holds, to the disk.

    Raises:
        OSError: if the disk refuses.
    """
    below = list(path.rglob("*")) if path.is_dir() else []
    if len(below) > _MANY:
        os.sync()
        return
    for file in (path, *below):
        if file.is_dir():
            sync_folder(file)
        else:
            _fsync(file)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, if its file system can do that."""
    with suppress(OSError):
        _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
