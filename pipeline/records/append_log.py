"""A file of JSON lines that survives a kill at any byte: appended, synced, a torn last line dropped."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pipeline.errors import LockedError
from tasks.files.locks import explain_no_locks

Record = dict[str, Any]

_SYNC_SECONDS = 0.2
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _lock(file: IO[Any], path: Path) -> None:
    """Lock an open log until it is closed; on NFS this excludes other machines too."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(f"{path}: another process is writing it") from error
    except OSError as error:
        explain_no_locks(path, error)
        raise


class AppendLog:
    """One writer; what it has read or written before is kept in memory by its users, not here.

    A line is torn when the writer died in mid-write: it is the last one and has no newline, and opening the log cuts it
    off, so that the next line starts cleanly.

    Raises:
        LockedError: another process holds the log.
        ValueError: the file system has no locks.
        OSError: it cannot be created or written (no space, no permission).
    """

    def __init__(self, path: Path) -> None:
        """Open for appending, creating the file and its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a+b")
        try:
            _lock(self._file, path)
        except (LockedError, ValueError):
            self._file.close()
            raise
        self._synced = time.monotonic()
        self._cut_torn_line()

    def _cut_torn_line(self) -> None:
        end = whole_length(self._path)
        if end != self._path.stat().st_size:
            self._file.truncate(end)

    def append(self, records: Iterable[Record]) -> None:
        """Write records, one a line.

        They are with the operating system when this returns, so a killed process loses nothing. They are forced to the
        disk a few times a second and on close, so a power cut loses at most that much work, and always the newest: a
        sync costs 2 to 4 ms, more than many shards' whole bookkeeping.
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
        """Force everything to the disk and release the lock, also where the disk is full."""
        try:
            self._sync()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        """Use as a context, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def append_unless_locked(path: Path, records: Iterable[Record]) -> bool:
    """Write records to a log that many share; False, and nothing written, where another process is writing just now."""
    try:
        with AppendLog(path) as log:
            log.append(records)
    except LockedError:
        return False
    return True


def whole_length(path: Path) -> int:
    """Bytes up to and including the last newline."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while size:
            start = max(0, size - 65536)
            file.seek(start)
            found = file.read(size - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            size = start
    return 0


def read_records(path: Path) -> Iterator[Record]:
    """Every whole line, in order; without a lock, so a running log can be read.

    Raises:
        ValueError: a line that is not the last is not JSON: the file was damaged by something else.
    """
    for number, line in enumerate(whole_lines(path), 1):
        yield _record(path, number, line)


def whole_lines(path: Path) -> Iterator[bytes]:
    """Every line that was written to its end, with that; none where there is no file."""
    if not path.exists():
        return
    left = whole_length(path)
    with path.open("rb") as file:
        for line in file:
            left -= len(line)
            if left < 0:
                return
            yield line


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        return parse_line(line)
    except ValueError as error:
        raise ValueError(f"{path}: line {number} is damaged ({error}); restore the file or start anew") from error


def parse_line(line: bytes) -> Record:
    """The record of one line.

    Raises:
        ValueError: it is none; in what way.
    """
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(record, dict) or "record" not in record:
        raise ValueError("not a record")
    return record


def lines_of(records: Iterable[Record]) -> bytes:
    """Records as a log holds them, one a line."""
    return b"".join(_encode(record).encode() + b"\n" for record in records)
