"""Proves that a log cut at any byte keeps its complete lines and can be appended to, by one writer at a time."""

import json
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import LockedError
from pipeline.records.append_log import AppendLog, Record, lines_of, parse_line, read_records, whole_length

TEXTS = st.lists(st.text(max_size=20), min_size=1, max_size=8)


def records(texts: list[str]) -> list[Record]:
    return [{"record": "note", "text": t} for t in texts]


@settings(max_examples=40)  # each syncs to the disk twice
@given(TEXTS, st.data())
def test_a_log_cut_at_any_byte_keeps_its_complete_lines_and_can_be_appended_to(
    texts: list[str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        with AppendLog(path) as log:
            log.append(records(texts))
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        whole = records(texts)[: content[:cut].count(b"\n")]
        assert list(read_records(path)) == whole
        with AppendLog(path) as log:
            log.append(records(["after"]))
        assert list(read_records(path)) == [*whole, *records(["after"])]


def test_a_torn_line_longer_than_a_block_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"record":"a"}\n' + b"x" * 200_000)
    assert whole_length(path) == 15
    path.write_bytes(b"x" * 70_000)
    assert whole_length(path) == 0 and list(read_records(path)) == []


def test_what_was_appended_is_readable_at_once_and_while_locked(tmp_path: Path) -> None:
    with AppendLog(tmp_path / "log.jsonl") as log:
        log.append(records(["a"]))
        log.append([])
        assert list(read_records(tmp_path / "log.jsonl")) == records(["a"])


def test_a_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    first = AppendLog(tmp_path / "log.jsonl")
    with pytest.raises(LockedError, match="another process is writing"):
        AppendLog(tmp_path / "log.jsonl")
    first.close()
    AppendLog(tmp_path / "log.jsonl").close()


def test_no_file_is_an_empty_log(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "nothing.jsonl")) == []


@pytest.mark.parametrize("line", [b"{broken", b"[1]", b"5", b"{}", b"\x00\xff"])
def test_damage_in_the_middle_is_an_error_with_file_and_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"record":"a"}\n' + line + b'\n{"record":"b"}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl: line 2 is damaged"):
        list(read_records(path))


def test_a_line_ends_with_the_checksum_of_what_is_before_it() -> None:
    line = lines_of([{"record": "note", "text": "a"}])
    assert line == b'{"record":"note","text":"a","checksum":"%08x"}\n' % zlib.crc32(b'{"record":"note","text":"a"')
    assert json.loads(line)["text"] == "a"


def test_every_flipped_bit_is_an_error_of_its_line_or_changes_no_record(tmp_path: Path) -> None:
    """The last newline may vanish: the last line is then torn, and scored again."""
    path, written = tmp_path / "log.jsonl", records(["one", "two", "three"])
    content = lines_of(written)
    for offset in range(len(content)):
        number = content[:offset].count(b"\n") + 1
        for bit in range(8):
            data = bytearray(content)
            data[offset] ^= 1 << bit
            path.write_bytes(data)
            if offset == len(content) - 1:
                assert list(read_records(path)) == written[:2]
                continue
            with pytest.raises(
                ValueError, match=rf"log\.jsonl: line {number} is damaged .*; restore the file, or start"
            ):
                list(read_records(path))


def test_lines_of_older_versions_have_no_checksum_and_may_come_before_ours(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"record":"note","text":"old"}\n')
    with AppendLog(path) as log:
        log.append(records(["new"]))
    assert list(read_records(path)) == records(["old", "new"])


@given(st.recursive(st.text() | st.floats(allow_nan=False) | st.none(), st.lists, max_leaves=5))
def test_any_record_comes_back(value: object) -> None:
    for record in ({"record": "note", "value": value}, {"record": "note", ',"checksum":"': [',"checksum":"', value]}):
        assert parse_line(lines_of([record])) == record  # type: ignore[list-item]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_line_that_another_program_has_changed_is_damaged(separators: tuple[str, str]) -> None:
    record = json.loads(lines_of([{"record": "note", "text": "a"}])) | {"text": "b"}
    with pytest.raises(ValueError, match="checksum"):
        parse_line(json.dumps(record, separators=separators).encode())
