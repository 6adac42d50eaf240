"""Records that runs share: lines of a file in the local cache, and sealed objects in the shared cache."""

import logging
import uuid
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
MANY = 32


class CacheRecords:
    """The records of one name. They only save work: what cannot be read or written is a warning, once."""

    def __init__(self, root: Path, name: str, batch: int, shared_batch: int) -> None:
        """Open the records of a name, such as scores/HASH, which need not exist.

        Args:
            root: the local cache.
            name: the same for all runs that share the records.
            batch: records written together to the file: each write opens, locks and syncs it.
            shared_batch: records written together to the shared cache: each write makes an object.
        """
        self._path, self._folder = root / f"{name}.jsonl", name
        self._given_up = False
        self._batches: list[tuple[int, list[Record], Callable[[list[Record]], bool]]] = [(batch, [], self._append)]
        if shared_cache("write") is not None:
            self._batches.append((shared_batch, [], self._create))

    def read(self, parse: Callable[[Record], T]) -> Iterator[T]:
        """Yield what `parse` makes of every record; damaged records are skipped, and some may come twice."""
        yield from self._read_file(parse)
        if (place := shared_cache("read")) is not None:
            found: list[T] = []
            with tolerated("read", place.url):
                found = self._read_objects(place, parse)
            yield from found

    def add(self, records: Iterable[Record]) -> None:
        """Add records; they are written when a batch is full, or by `flush`."""
        new = list(records)
        for size, unwritten, write in self._batches:
            unwritten += new
            if len(unwritten) >= size and write(unwritten):
                unwritten.clear()

    def flush(self) -> None:
        """Write what is not written yet; a failed write only costs recomputation."""
        for _, unwritten, write in self._batches:
            if unwritten and write(unwritten):
                unwritten.clear()

    def _read_file(self, parse: Callable[[Record], T]) -> Iterator[T]:
        damaged = 0
        try:
            for line in whole_lines(self._path):
                try:
                    found = parse(parse_line(line))
                except Exception:  # a damaged line may raise anything
                    damaged += 1
                else:
                    yield found
        except OSError as error:
            self._give_up("read", error)
        if damaged:
            hint = "they are skipped, and the file may be deleted"
            logger.warning("%s: lines that are damaged: %d; %s", self._path, damaged, hint)

    def _append(self, records: list[Record]) -> bool:
        """Write records to the file, or drop them after a failure; return False if another run is writing."""
        if not self._given_up:
            try:
                with AppendLog(self._path) as log:
                    log.append(records)
            except LockedError:
                return False
            except (OSError, ValueError) as error:
                self._give_up("write", error)
        return True

    def _give_up(self, use: str, error: Exception) -> None:
        self._given_up = True
        logger.warning("%s: this process does not %s there any more: %s", self._path, use, error)

    def _read_objects(self, place: StoreFolder, parse: Callable[[Record], T]) -> list[T]:
        lines: dict[bytes, None] = {}
        parsed: list[T] = []
        whole = []
        for name, data in place.read_many(place.entries(self._folder)).items():
            if data is not None:  # None: another reader has just merged it
                with tolerated("read", place.url):
                    some, found = _parse_object(f"{place.url}/{name}", data, parse)
                    lines |= dict.fromkeys(some)
                    parsed += found
                    whole.append(name)
        if len(whole) > MANY and shared_cache("write"):
            with tolerated("write", place.url):
                # Written before the deletion: of two readers that merge at once, each has written all that it deletes.
                place.create(self._new_name(), seal(b"".join(lines)))
                place.delete(whole)
        return parsed

    def _create(self, records: list[Record]) -> bool:
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
