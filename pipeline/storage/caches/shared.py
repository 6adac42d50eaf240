"""Records that runs on many machines share: objects of the shared cache, each written once under a name of its own."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pipeline.records.append_log import Record, lines_of, parse_line
from tasks.files.checksums import DamagedError, seal, unseal
from tasks.files.object_store import StoreFolder
from tasks.files.shared_cache import shared_cache, tolerated

#: So many objects are made one by whoever reads them next.
_MANY = 32
T = TypeVar("T")


class SharedRecords:
    """The records of one folder of the shared cache; without such a cache there are none, and none are kept."""

    def __init__(self, folder: str, together: int) -> None:
        """Of a folder such as scores/NAME; so many records are written together, since each write is an object."""
        self._folder, self._together = folder, together
        self._unwritten: list[Record] = []

    def read(self, parse: Callable[[Record], T]) -> Iterator[T]:
        """All that was ever added and is not damaged, in no particular order; some of it may come twice.

        Args:
            parse: makes of a record what it stands for; an object with a record that it cannot read is damaged.
        """
        place = shared_cache("read")
        found: list[T] = []
        if place is not None:
            with tolerated("read", place.url):
                found = self._read(place, parse)
        yield from found

    def _read(self, place: StoreFolder, parse: Callable[[Record], T]) -> list[T]:
        names = list(place.entries(self._folder))
        lines: dict[bytes, None] = {}
        parsed: list[T] = []
        whole = []
        for name, data in place.read_many(names).items():
            if data is not None:  # None: another has made one object of it and others meanwhile
                with tolerated("read", place.url):
                    some, found = _read_object(f"{place.url}/{name}", data, parse)
                    lines |= dict.fromkeys(some)
                    parsed += found
                    whole.append(name)
        if len(whole) > _MANY and shared_cache("write"):
            with tolerated("write", place.url):
                # Written before those are deleted: whatever two that do this at once delete, each of them has written.
                place.create(self._new_name(), seal(b"".join(lines)))
                place.delete(whole)
        return parsed

    def add(self, records: Iterable[Record]) -> None:
        """Keep records, written once there are enough of them."""
        if shared_cache("write") is not None:
            self._unwritten += records
        if len(self._unwritten) >= self._together:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet."""
        place = shared_cache("write")
        if place is not None and self._unwritten:
            with tolerated("write", place.url):
                place.create(self._new_name(), seal(lines_of(self._unwritten)))
        self._unwritten = []

    def _new_name(self) -> str:
        return f"{self._folder}/{uuid.uuid4().hex}.jsonl"


def _read_object(name: str, data: bytes, parse: Callable[[Record], T]) -> tuple[list[bytes], list[T]]:
    """Its lines, and what they stand for. Whoever may write to the shared cache may have written anything."""
    try:
        lines = unseal(data)[1].splitlines(keepends=True)
        return lines, [parse(parse_line(line)) for line in lines]
    except DamagedError as error:
        raise DamagedError(f"{name}: {error}") from error
    except Exception as error:
        raise DamagedError(f"{name}: a record in it cannot be read ({type(error).__name__}: {error})") from error
