"""Proves that provenance.json is read as it was written, or not at all; files of older versions have no checksum."""

import json
from pathlib import Path

import pytest
from damage import flip

from pipeline.records.provenance_file import FILE_NAME, read_provenance, write_provenance

FACTS = {"name": "café", "n": 500, "tasks": [{"name": "cats", "n": {"val": 30}}], "complete": True}


def test_facts_come_back_and_other_programs_read_them(tmp_path: Path) -> None:
    write_provenance(tmp_path, FACTS)
    assert read_provenance(tmp_path / FILE_NAME) == FACTS
    plain = json.loads((tmp_path / FILE_NAME).read_text())
    assert plain.pop("checksum") and plain == FACTS


def test_a_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps(FACTS, indent=2) + "\n")
    assert read_provenance(tmp_path / FILE_NAME) == FACTS


def test_an_edited_file_is_an_error(tmp_path: Path) -> None:
    write_provenance(tmp_path, FACTS)
    plain = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps(plain | {"n": 600}))
    with pytest.raises(
        ValueError, match=r"provenance\.json: damaged \(it is not what was written\); `lines report RUN`"
    ):
        read_provenance(tmp_path / FILE_NAME)


def test_a_flipped_bit_is_an_error_or_changes_no_fact(tmp_path: Path) -> None:
    """A letter of the word checksum may change: all facts are then as written."""
    write_provenance(tmp_path, FACTS)
    path = tmp_path / FILE_NAME
    data, found = path.read_bytes(), 0
    for offset in range(len(data)):
        for bit in range(8):
            path.write_bytes(data)
            flip(path, offset, bit)
            try:
                facts = read_provenance(path)
            except ValueError as error:
                assert f"{path}: damaged (" in str(error) and "`lines report RUN` writes it again" in str(error)
                found += 1
            else:
                assert facts.items() >= FACTS.items()
    assert found > 0.7 * 8 * len(data)
