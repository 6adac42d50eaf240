"""Records that runs on one machine share: a file of the cache, to which each appends what is new."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pipeline.records.append_log import Record, append_unless_locked, parse_line, whole_lines

T = TypeVar("T")
logger = logging.getLogger(__name__)


class LocalRecords:
    """The records of one file. It saves work and nothing else: where it cannot be used, a warning says so, once."""

    def __init__(self, path: Path, together: int) -> None:
        """Of a file, which need not exist; so many records are written together: each write opens, locks and syncs."""
        self._path, self._together = path, together
        self._unwritten: list[Record] = []
        self._given_up = False

    def read(self, parse: Callable[[Record], T]) -> Iterator[T]:
        """All that was ever added and can be read, in order.

        Args:
            parse: makes of a record what it stands for; a line that it cannot read is passed over.
        """
        passed_over = 0
        try:
            for line in whole_lines(self._path):
                try:
                    found = parse(parse_line(line))
                except Exception:  # whatever a damaged line may lead to
                    passed_over += 1
                else:
                    yield found
        except OSError as error:
            self._give_up("read", error)
        if passed_over:
            logger.warning("%s: lines that are damaged: %d; they are passed over, and the file may be deleted",
                           self._path, passed_over)  # fmt: skip

    def add(self, records: Iterable[Record]) -> None:
        """Keep records, written once there are enough of them."""
        if not self._given_up:
            self._unwritten += records
        if len(self._unwritten) >= self._together:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet; where another run is writing just now it waits, which may cost time."""
        try:
            if self._unwritten and append_unless_locked(self._path, self._unwritten):
                self._unwritten = []
        except (OSError, ValueError) as error:
            self._give_up("write", error)

    def _give_up(self, use: str, error: Exception) -> None:
        self._given_up, self._unwritten = True, []
        logger.warning("%s: this process does not %s there any more: %s", self._path, use, error)
