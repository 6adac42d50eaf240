"""Proves that a log in a store keeps every confirmed line through writers, compactions and kills."""

from dataclasses import dataclass, field

import pytest
from faulty_place import FaultyPlace, Killed, memory_place, names
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_run import log_of

from pipeline.errors import LockedError
from pipeline.storage.segments import Chain, ChainError, segment_name
from tasks.files.object_store import StoreFolder
from tasks.files.store_errors import UnreachableError

WRITERS = range(3)
FAULTS = ["", "", "", "lost before", "lost after", "killed before", "killed after"]
ACTIONS = st.tuples(
    st.sampled_from(["open", "append", "append", "append", "compact"]),
    st.sampled_from(WRITERS),
    st.lists(st.sampled_from(FAULTS), max_size=5),
)


@dataclass
class Writer:
    """A driver: the log that it knows to be written, and lines whose answer was lost."""

    place: FaultyPlace
    chain: Chain
    log: bytes
    pending: bytes = b""


@dataclass
class World:
    place: StoreFolder = field(default_factory=memory_place)
    writers: dict[int, Writer] = field(default_factory=dict)
    confirmed: list[tuple[int, bytes]] = field(default_factory=list)
    before: bytes = b""
    lines: int = 0

    def act(self, what: str, who: int, faults: list[str]) -> None:
        if what == "open":
            self.open(who)
        elif who in self.writers:
            writer = self.writers[who]
            writer.place.faults[:] = faults
            try:
                self.append(writer) if what == "append" else self.compact(writer)
            except (Killed, LockedError):
                del self.writers[who]
            except UnreachableError:
                pass
            finally:
                writer.place.faults.clear()
        self.check()

    def open(self, who: int) -> None:
        place = FaultyPlace.over(self.place)
        chain = Chain(place, f"writer {self.lines} {who}")
        self.lines += 1
        self.writers[who] = Writer(place, chain, chain.read())

    def append(self, writer: Writer) -> None:
        self.lines += 1
        writer.pending = writer.pending or f"line {self.lines}\n".encode() * (1 + self.lines % 3)
        at = writer.chain.end
        writer.chain.append(writer.pending)
        self.confirmed.append((at, writer.pending))
        writer.log, writer.pending = writer.log + writer.pending, b""

    def compact(self, writer: Writer) -> None:
        if writer.log:
            writer.chain.compact(writer.log)

    def check(self) -> None:
        log = log_of(self.place)
        assert log.startswith(self.before), "the log was changed, or is shorter"
        assert not log or log.endswith(b"\n")
        for at, lines in self.confirmed:
            assert log[at : at + len(lines)] == lines, "what was confirmed is lost"
        self.before = log


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=40))
def test_no_confirmed_line_is_lost_and_the_log_only_grows(actions: list[tuple[str, int, list[str]]]) -> None:
    world = World()
    for action in actions:
        world.act(*action)


def opened(place: StoreFolder, writer: str, *lines: bytes) -> Chain:
    """Open the log for a writer, who appends lines."""
    chain = Chain(place, writer)
    chain.read()
    for line in lines:
        chain.append(line)
    return chain


def test_a_writer_whose_place_was_written_and_compacted_by_the_one_before_is_fenced_off(place: StoreFolder) -> None:
    first = opened(place, "first", b"a\n")
    second = opened(place, "second")
    first.append(b"b\n")
    first.compact(b"a\nb\n")
    with pytest.raises(LockedError, match="another run"):
        second.append(b"c\n")
    first.append(b"d\n")
    assert log_of(place) == b"a\nb\nd\n"


def test_a_writer_that_slept_is_fenced_off_even_after_a_compaction(place: StoreFolder) -> None:
    first = opened(place, "first", b"a\n")
    second = opened(place, "second", b"b\n", b"c\n")
    second.compact(b"a\nb\nc\n")
    with pytest.raises(LockedError, match="another run has resumed this one"):
        first.append(b"z\n")
    assert log_of(place) == b"a\nb\nc\n"


def test_a_compaction_by_a_writer_that_slept_takes_nothing_away(place: StoreFolder) -> None:
    first = opened(place, "first", b"a\n", b"b\n")
    second = opened(place, "second", b"c\n", b"d\n")
    second.compact(b"a\nb\nc\nd\n")
    first.compact(b"a\nb\n")
    assert log_of(place) == b"a\nb\nc\nd\n"


def test_compaction_leaves_one_object_and_the_first_segment_of_each_writer(place: StoreFolder) -> None:
    opened(place, "first", b"a\n", b"b\n", b"c\n")
    other = opened(place, "second", b"d\n", b"e\n")
    assert other.segments == 3
    other.compact(b"a\nb\nc\nd\ne\n")
    whole = "journal/000000000000000-000000000000010.jsonl"
    assert list(names(place)) == [whole, segment_name(0), segment_name(6)]
    assert other.segments == 0 and other.compacted == 10


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_segment_is_an_error_that_names_it(place: StoreFolder, damage: str) -> None:
    opened(place, "first", b"a\n", b"b\n")
    data = place.read(segment_name(2))
    assert data is not None
    place.write(segment_name(2), {"cut": data[:-1], "changed": data[:-2] + b"x\n", "other": b"hello\n"}[damage])
    with pytest.raises(ChainError, match=r"journal/000000000000002\.jsonl: damaged: .*restore"):
        log_of(place)


def test_a_missing_segment_is_an_error_that_names_it(place: StoreFolder) -> None:
    opened(place, "first", b"a\n", b"b\n", b"c\n")
    place.delete([segment_name(2)])
    with pytest.raises(ChainError, match=r"a segment is missing: journal/000000000000002\.jsonl"):
        log_of(place)


def test_a_reader_that_meets_a_compaction_lists_again(place: StoreFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = opened(place, "first", b"a\n", b"b\n", b"c\n")
    read_many = StoreFolder.read_many
    waiting = [chain]

    def late(self: StoreFolder, wanted: list[str]) -> dict[str, bytes | None]:
        while waiting:
            waiting.pop().compact(b"a\nb\nc\n")
        return read_many(self, wanted)

    monkeypatch.setattr(StoreFolder, "read_many", late)
    assert log_of(place) == b"a\nb\nc\n"
