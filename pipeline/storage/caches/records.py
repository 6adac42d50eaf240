"""Records that runs share: lines of a file in the local cache, and sealed objects in the shared cache.

Both only save work: if one of them cannot be used, a warning is logged once and the run continues without it.
"""

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pipeline.errors import LockedError
from pipeline.records.append_log import AppendLog, Record, lines_of, parse_line, whole_lines
from tasks.files.checksums import DamagedError, seal, unseal
from tasks.files.object_store import StoreFolder
from tasks.files.shared_cache import shared_cache, tolerated

T = TypeVar("T")
logger = logging.getLogger(__name__)
#: More objects than this are merged into one by the next reader.
_MANY = 32


class CacheRecords:
    """The records of one name in both caches."""

    def __init__(self, root: Path, name: str, batch: int, shared_batch: int) -> None:
        """Open the records of a name, such as scores/HASH, which need not exist.

        Args:
            root: the local cache.
            name: the same for all runs that share the records.
            batch: records written together to the file: each write opens, locks and syncs it.
            shared_batch: records written together to the shared cache: each write makes an object.
        """
        self._parts = LocalRecords(root / f"{name}.jsonl", batch), SharedRecords(name, shared_batch)

    def read(self, parse: Callable[[Record], T]) -> Iterator[T]:
        """Yield what `parse` makes of every record; damaged records are skipped, and some may come twice."""
        for part in self._parts:
            yield from part.read(parse)

    def add(self, records: list[Record]) -> None:
        """Add records; they are written when a batch is full, or by `flush`."""
        for part in self._parts:
            part.add(records)

    def flush(self) -> None:
        """Write what is not written yet; a failed write only costs recomputation."""
        for part in self._parts:
            part.flush()


class _Batched(ABC):
    """Collects records and writes them in batches."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._unwritten: list[Record] = []

    def add(self, records: Iterable[Record]) -> None:
        """Add records, and write them once there are enough."""
        if self._writable():
            self._unwritten += records
        if len(self._unwritten) >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet."""
        if self._unwritten and self._write(self._unwritten):
            self._unwritten = []

    @abstractmethod
    def _writable(self) -> bool: ...

    @abstractmethod
    def _write(self, records: list[Record]) -> bool:
        """Write records, or drop them after a failure; return False to try them again later."""


class LocalRecords(_Batched):
    """The lines of one file, to which every run on this machine appends."""

    def __init__(self, path: Path, batch: int) -> None:
        """Open a file, which need not exist."""
        super().__init__(batch)
        self._path = path
        self._given_up = False

    def read(self, parse: Callable[[Record], T]) -> Iterator[T]:
        """Yield what `parse` makes of each line, in order; a line that it cannot parse is skipped."""
        damaged = 0
        try:
            for line in whole_lines(self._path):
                try:
                    found = parse(parse_line(line))
                except Exception:  # whatever a damaged line may lead to
                    damaged += 1
                else:
                    yield found
        except OSError as error:
            self._give_up("read", error)
        if damaged:
            logger.warning("%s: lines that are damaged: %d; they are skipped, and the file may be deleted",
                           self._path, damaged)  # fmt: skip

    def _writable(self) -> bool:
        return not self._given_up

    def _write(self, records: list[Record]) -> bool:
        try:
            with AppendLog(self._path) as log:
                log.append(records)
        except LockedError:  # another run is writing
            return False
        except (OSError, ValueError) as error:
            self._give_up("write", error)
        return True

    def _give_up(self, use: str, error: Exception) -> None:
        self._given_up, self._unwritten = True, []
        logger.warning("%s: this process does not %s there any more: %s", self._path, use, error)


class SharedRecords(_Batched):
    """The objects of one folder of the shared cache, each written once under a new name."""

    def __init__(self, folder: str, batch: int) -> None:
        """Open a folder such as scores/HASH, which need not exist."""
        super().__init__(batch)
        self._folder = folder

    def read(self, parse: Callable[[Record], T]) -> list[T]:
        """Return what `parse` makes of each record; an object with a record that it cannot parse is skipped."""
        place = shared_cache("read")
        if place is not None:
            with tolerated("read", place.url):
                return self._read(place, parse)
        return []

    def _read(self, place: StoreFolder, parse: Callable[[Record], T]) -> list[T]:
        names = list(place.entries(self._folder))
        lines: dict[bytes, None] = {}
        parsed: list[T] = []
        whole = []
        for name, data in place.read_many(names).items():
            if data is not None:  # None: another reader has just merged it
                with tolerated("read", place.url):
                    some, found = _parse_object(f"{place.url}/{name}", data, parse)
                    lines |= dict.fromkeys(some)
                    parsed += found
                    whole.append(name)
        if len(whole) > _MANY and shared_cache("write"):
            with tolerated("write", place.url):
                # Written before the deletion: of two readers that merge at once, each has written all that it deletes.
                place.create(self._new_name(), seal(b"".join(lines)))
                place.delete(whole)
        return parsed

    def _writable(self) -> bool:
        return shared_cache("write") is not None

    def _write(self, records: list[Record]) -> bool:
        if (place := shared_cache("write")) is not None:
            with tolerated("write", place.url):
                place.create(self._new_name(), seal(lines_of(records)))
        return True

    def _new_name(self) -> str:
        return f"{self._folder}/{uuid.uuid4().hex}.jsonl"


def _parse_object(name: str, data: bytes, parse: Callable[[Record], T]) -> tuple[list[bytes], list[T]]:
    """Return the lines of an object and their records; anything may be in it, as many can write to a shared cache."""
    try:
        lines = unseal(data)[1].splitlines(keepends=True)
        return lines, [parse(parse_line(line)) for line in lines]
    except DamagedError as error:
        raise DamagedError(f"{name}: {error}") from error
    except Exception as error:
        raise DamagedError(f"{name}: a record in it cannot be read ({type(error).__name__}: {error})") from error
