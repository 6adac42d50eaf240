"""A file of JSON lines that survives a kill at any byte: appended, synced, a torn last line dropped.

Each line ends with a checksum: `{"record":...,"checksum":"1f0a9c3e"}`, the CRC-32 of the bytes before `,"checksum"`.
Lines of older versions have none, and one file may hold both.
"""

import fcntl
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import LockedError
from tasks.files.locks import explain_no_locks

Record = dict[str, Any]

_SYNC_SECONDS = 0.2
#: Before the 8 hexadecimal digits of a line's checksum; in a JSON string its quotes would be escaped.
_CHECKSUM = b',"checksum":"'
_END_BYTES = len(_CHECKSUM) + len('1f0a9c3e"}')
#: Equal bytes from which on a line's end is a checksum whose name was damaged.
_SIMILAR = 9
_encode = json.JSONEncoder(separators=(",", ":")).encode


class AppendLog(AbstractContextManager["AppendLog"]):
    """The only writer of a log, which it locks until it is closed; on NFS this excludes other machines too.

    A line is torn if the writer died while it wrote: it is the last one and has no newline. Opening the log cuts it
    off, so that the next line starts cleanly.

    Raises:
        LockedError: if another process holds the log.
        ValueError: if the file system has no locks.
        OSError: if the file cannot be created or written (no space, no permission).
    """

    def __init__(self, path: Path) -> None:
        """Open for appending, creating the file and its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            _lock(self._file, path)
        except (LockedError, ValueError):
            self._file.close()
            raise
        self._synced = time.monotonic()
        end = whole_length(path)
        if end != path.stat().st_size:
            self._file.truncate(end)

    def append(self, records: Iterable[Record]) -> None:
        """Write records, one a line.

        The operating system has them when this returns, so a killed process loses nothing. They are forced to the disk
        five times a second and on close, so a power cut loses at most that much work, and always the newest: a sync
        takes 2 to 4 ms, more than all other bookkeeping of many shards.
        """
        data = lines_of(records)
        if data:
            self._file.write(data)
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Force everything to the disk and release the lock, even if the disk is full."""
        try:
            self._sync()
        finally:
            self._file.close()

    def __exit__(self, *error: object) -> None:
        """Close at the end of a block."""
        self.close()


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(f"{path}: another process is writing it") from error
    except OSError as error:
        explain_no_locks(path, error)
        raise


def whole_length(path: Path) -> int:
    """Return the number of bytes up to and including the last newline."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while size:
            start = max(0, size - 65536)
            file.seek(start)
            newline = file.read(size - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            size = start
    return 0


def read_records(path: Path) -> Iterator[Record]:
    """Yield the record of every complete line, in order; no lock is taken, so a log can be read while it is written.

    Raises:
        ValueError: if a complete line is not a record; something else damaged the file.
    """
    for number, line in enumerate(whole_lines(path), 1):
        yield record_at(path, number, line)


def record_at(path: Path, number: int, line: bytes) -> Record:
    """Return the record of a file's line, as `parse_line`.

    Raises:
        ValueError: if the line is damaged; file and line are named.
    """
    try:
        return parse_line(line)
    except ValueError as error:
        raise damaged_line(path, number, error) from error


def damaged_line(path: Path, number: int, error: Exception) -> ValueError:
    """Return the error of a file's line, counted from 1."""
    hint = "restore the file, or start again in another folder, where the score cache saves most of the work"
    return ValueError(f"{path}: line {number} is damaged ({error}); {hint}")


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield every complete line with its newline; none if there is no file."""
    if not path.exists():
        return
    left = whole_length(path)
    with path.open("rb") as file:
        for line in file:
            left -= len(line)
            if left < 0:
                return
            yield line


def read_lines(file: BinaryIO, size: int) -> bytes:
    """Return complete lines from a file's position: about `size` bytes, or one longer line; none if there is none."""
    data = file.read(size)
    while data and b"\n" not in data and (more := file.read(size)):
        data += more
    return data[: data.rfind(b"\n") + 1]


def parse_line(line: bytes) -> Record:
    """Return the record of one line.

    Raises:
        ValueError: if the line differs from its checksum, or is not a JSON object with a `record` field.
    """
    head, found, digits = line.rpartition(_CHECKSUM)
    if found:
        if digits.rstrip(b"\n") != b'%08x"}' % zlib.crc32(head):
            raise ValueError("it does not match its checksum")
        line = head + b"}"
    elif _ends_similarly(line.rstrip(b"\n")):
        raise ValueError("its checksum is damaged")
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(record, dict) or "record" not in record:
        raise ValueError("not a record")
    if not found and "checksum" in record:
        raise ValueError("it was written again by another program, which did not update its checksum")
    return record


def _ends_similarly(line: bytes) -> bool:
    """Return whether a line without checksum ends like one with: a changed letter would hide the checksum."""
    pairs = zip(line[-_END_BYTES:], _CHECKSUM, strict=False)
    return len(line) > _END_BYTES and sum(a == b for a, b in pairs) >= _SIMILAR


def lines_of(records: Iterable[Record]) -> bytes:
    """Return records as a log holds them, one a line."""
    return b"".join(map(_line, records))


def _line(record: Record) -> bytes:
    head = _encode(record).encode().removesuffix(b"}")
    return b'%b%b%08x"}\n' % (head, _CHECKSUM, zlib.crc32(head))
