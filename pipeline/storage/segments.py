"""A log in an object store, which cannot append: a chain of objects, each created once and never changed.

- `journal/<first byte>.jsonl` is a segment: whole lines from that byte of the log on. It is created exclusively, so
  of two writers that take the same byte for the end of the log one succeeds, and the other learns of it.
- `journal/<0>-<end>.jsonl` holds everything before `end`. Compaction writes it, and then deletes what it covers.
- A reader takes the longest of these, continues with the segment that begins where it ends, and so on.
- Compaction keeps the first segment of every writer, which is where the writer before would write next. If that one
  was only asleep, its next segment collides, so a writer need not check whether it is still the only one. Only its own
  first segment may have come too late: the writer before may have written there and compacted that away.
"""

import re

from pipeline.errors import LockedError
from tasks.files.checksums import DamagedError, seal, unseal
from tasks.files.object_store import StoreFolder

FOLDER = "journal"
_NAME = re.compile(r"journal/(?P<first>\d{15})(-(?P<end>\d{15}))?\.jsonl")
#: Attempts to read: a compaction between listing and reading deletes objects, and then all is listed again.
_TRIES = 10


class ChainError(ValueError):
    """The log in the store has a gap, or an object that is not what was written."""


def segment_name(first: int) -> str:
    """Return the name of the segment that begins at a byte of the log."""
    return f"{FOLDER}/{first:015}.jsonl"


def whole_name(end: int) -> str:
    """Return the name of the object that holds everything before a byte of the log."""
    return f"{FOLDER}/{0:015}-{end:015}.jsonl"


class Chain:
    """The log of one run, for one writer and any number of readers at the same time."""

    def __init__(self, place: StoreFolder, writer: str, kept: dict[str, tuple[str, bytes]] | None = None) -> None:
        """Name a chain without reading it.

        Args:
            place: the folder of the run.
            writer: an id that no other writer has ever had.
            kept: a reader's memory of the objects read before: they are fetched again only if the store's information
                on them has changed.
        """
        self.writer = writer
        self._place, self._kept = place, kept
        self._marks: dict[str, str] = {}
        # What compaction may delete: the end of each compacted object, and the first byte of each segment but the first
        # ones of writers.
        self._wholes: list[int] = []
        self._others: list[int] = []
        self._opened = False
        self.id = ""
        self.end = 0

    @property
    def segments(self) -> int:
        """Number of segments that compaction would replace."""
        return len(self._others)

    @property
    def compacted(self) -> int:
        """Bytes in the longest compacted object."""
        return max(self._wholes, default=0)

    def read(self) -> bytes:
        """Return the log with every byte whose writing was ever confirmed; `append` continues from there.

        Raises:
            ChainError: if an object is damaged or missing.
            RemoteError: if the store refuses.
        """
        for _ in range(_TRIES):
            self._wholes, self._others, segments = [], [], set[int]()
            entries = self._place.entries(FOLDER)
            self._marks = {name: repr(info) for name, info in entries.items()}
            for name in entries:
                if (match := _NAME.fullmatch(name)) and match["end"]:
                    self._wholes.append(int(match["end"]))
                elif match:
                    segments.add(int(match["first"]))
            found = self._read(segments)
            if found is not None:
                self.end = len(found)
                return found
        raise ChainError(
            f"{self._place.url}/{FOLDER}: a segment is missing: {self._missing}; restore it (versions of the bucket), "
            "or start again elsewhere"
        )

    def _read(self, segments: set[int]) -> bytes | None:
        """Return the log of the listed objects; None if some are gone."""
        whole = whole_name(self.compacted)
        names = [segment_name(first) for first in segments] + ([whole] if self.compacted else [])
        contents = self._contents(names)
        log = bytearray(self._body(whole, contents) or b"") if self.compacted else bytearray()
        self._missing = whole
        if self.compacted and not log:
            return None
        for first in sorted(segments):
            name = segment_name(first)
            body = self._body(name, contents)
            self._missing = segment_name(len(log))
            if first > len(log) or (body is None and first == len(log)):
                return None
            if first == len(log):
                assert body is not None
                log += body
        return bytes(log)

    def _contents(self, names: list[str]) -> dict[str, bytes | None]:
        kept = self._kept
        if kept is None:
            return self._place.read_many(names)
        for name in [n for n, (mark, _) in kept.items() if mark != self._marks.get(n)]:
            del kept[name]
        found = self._place.read_many([name for name in names if name not in kept])
        kept |= {name: (self._marks[name], data) for name, data in found.items() if data is not None}
        return found | {name: kept[name][1] for name in names if name in kept}

    def _body(self, name: str, contents: dict[str, bytes | None]) -> bytes | None:
        data = contents[name]
        if data is None:
            return None
        try:
            fields, body = unseal(data)
        except DamagedError as error:
            raise ChainError(f"{self._place.url}/{name}: damaged: {error}; restore an older version of it") from error
        self.id = fields["chain"]
        if not fields["opening"] and "-" not in name:
            self._others.append(int(fields["first"]))
        return body

    def append(self, lines: bytes) -> None:
        """Write whole lines at the end, durably. After an error, call it again with the same lines.

        Raises:
            LockedError: if another writer has written there.
            RemoteError: if the store refuses; the lines may be written or not.
        """
        assert lines.endswith(b"\n")
        name, opening = segment_name(self.end), not self._opened
        self.id = self.id or self.writer
        data = seal(lines, first=self.end, opening=opening, writer=self.writer, chain=self.id)
        # An existing one may be ours: an earlier attempt was written, but its answer was lost.
        if not self._place.create(name, data) and self._place.read(name) != data:
            raise self._locked()
        if opening and self._was_compacted():
            raise self._locked()
        if not opening:
            self._others.append(self.end)
        self._opened = True
        self.end += len(lines)

    def _was_compacted(self) -> bool:
        """Whether a compacted object has the byte at `end` already, so that no reader looks at a segment there."""
        found = map(_NAME.fullmatch, self._place.entries(FOLDER))
        return any(match and match["end"] and int(match["end"]) > self.end for match in found)

    def _locked(self) -> LockedError:
        return LockedError(f"{self._place.url}: another run has resumed this one: this one ends here")

    def compact(self, log: bytes) -> None:
        """Write the whole log as one object, and delete the objects that it replaces.

        Args:
            log: the log to its `end`.

        Raises:
            RemoteError: if the store refuses; the log is still whole.
        """
        assert len(log) == self.end
        self._place.create(whole_name(self.end), seal(log, opening=False, writer=self.writer, chain=self.id))
        segments = (segment_name(first) for first in self._others if first < self.end)
        self._place.delete([*(whole_name(end) for end in self._wholes if end < self.end), *segments])
        self._wholes = [*(end for end in self._wholes if end >= self.end), self.end]
        self._others = [first for first in self._others if first >= self.end]
