"""A store in memory that fails on demand: an answer is lost or the process dies, before or after the change."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from tasks.files.object_store import StoreFolder
from tasks.files.store_errors import UnreachableError

_T = TypeVar("_T")
_numbers = itertools.count()


class Killed(BaseException):
    """The process that made the request died."""


def memory_place() -> StoreFolder:
    """Return an empty folder that no other test uses."""
    return StoreFolder.open(f"memory://bucket/{next(_numbers)}")


@dataclass(frozen=True)
class FaultyPlace(StoreFolder):
    """Fails at the next changes, one entry of `faults` each: "", or "lost" or "killed" with "before" or "after"."""

    faults: list[str] = field(default_factory=list)

    @classmethod
    def over(cls, place: StoreFolder) -> "FaultyPlace":
        return cls(place.url, place.fs, place.root)

    def create(self, name: str, data: bytes) -> bool:
        return self._failing(lambda: StoreFolder.create(self, name, data))

    def write(self, name: str, data: bytes) -> None:
        self._failing(lambda: StoreFolder.write(self, name, data))

    def delete(self, names: Iterable[str]) -> None:
        """Delete one by one: a store may have deleted some when it fails."""
        for name in names:
            self._failing(lambda name=name: StoreFolder.delete(self, [name]))  # type: ignore[misc]

    def _failing(self, change: Callable[[], _T]) -> _T:
        fault = self.faults.pop(0) if self.faults else ""
        if fault.endswith("before"):
            self._fail(fault)
        done = change()
        if fault:
            self._fail(fault)
        return done

    @staticmethod
    def _fail(fault: str) -> None:
        raise Killed if fault.startswith("killed") else UnreachableError(fault)


def names(place: StoreFolder) -> Iterator[str]:
    """Yield the names of all objects, in order."""
    yield from sorted(place.entries())
