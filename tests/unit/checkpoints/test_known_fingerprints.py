"""Proves that a known fingerprint is that of the numbers that were read, whatever happens to files and cache."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.checkpoints import checkpoint
from pipeline.checkpoints.checkpoint import Checkpoint, fingerprint, read_checkpoint
from pipeline.checkpoints.known_fingerprints import KnownFingerprints
from pipeline.checkpoints.lazy import open_checkpoint
from tasks.files.cache import cache_root

STATE = {"a.weight": torch.arange(600_000, dtype=torch.float32), "b.bias": torch.ones(3, dtype=torch.bfloat16)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(STATE, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which a name is added for each hash by BLAKE2b."""
    calls: list[str] = []
    blake2b = checkpoint._blake2b
    monkeypatch.setattr(checkpoint, "_blake2b", lambda: calls.append("blake2b") or blake2b())
    return calls


def entries() -> list[Path]:
    return sorted((cache_root() / "fingerprints").iterdir())


@pytest.mark.parametrize("read", [read_checkpoint, open_checkpoint])
def test_an_unchanged_file_is_hashed_once(read: Callable[[str], Checkpoint], path: Path, computed: list[str]) -> None:
    first, second = read(str(path)).fingerprint, read(str(path)).fingerprint
    assert computed == ["blake2b"]
    assert first == second == fingerprint(STATE)


def test_a_file_of_which_nothing_is_known_is_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    pieces_of = checkpoint.pieces_of
    monkeypatch.setattr(checkpoint, "pieces_of", lambda state, name, n: reads.append(name) or pieces_of(state, name, n))
    state = open_checkpoint(str(path)).state
    assert reads == list(state) == ["a.weight", "b.bias"]


def test_a_bit_that_flips_in_place_gives_another_fingerprint(path: Path, computed: list[str]) -> None:
    before, stat = read_checkpoint(str(path)).fingerprint, path.stat()
    with path.open("r+b") as file:
        file.seek(-1_000_003, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1_000_003, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = read_checkpoint(str(path))
    assert after.fingerprint == fingerprint(after.state) != before


def test_other_numbers_below_the_same_stamps_are_hashed(path: Path, computed: list[str]) -> None:
    # As a disk or memory that flips a bit does: no stamp changes.
    known = KnownFingerprints([path])
    assert fingerprint(STATE, known) == fingerprint(STATE)
    flipped = {**STATE, "a.weight": STATE["a.weight"].clone()}
    flipped["a.weight"].view(torch.int32)[599_999] ^= 1
    del computed[:]
    found = fingerprint(flipped, known)
    assert computed == ["blake2b"]
    assert found == fingerprint(flipped) != fingerprint(STATE)


def test_equal_numbers_in_another_file_are_hashed(path: Path, computed: list[str]) -> None:
    read_checkpoint(str(path))
    (other := path.with_name("other.safetensors")).write_bytes(path.read_bytes())
    read_checkpoint(str(other))
    assert computed == ["blake2b", "blake2b"] and len(entries()) == 2


def test_a_damaged_entry_is_computed_again(path: Path, computed: list[str]) -> None:
    whole = read_checkpoint(str(path)).fingerprint
    (entry,) = entries()
    for damaged in (b"", entry.read_bytes()[:-1] + b"x"):
        entry.write_bytes(damaged)
        assert read_checkpoint(str(path)).fingerprint == whole
    assert len(computed) == 3


def test_what_changes_while_it_is_hashed_is_not_kept(path: Path) -> None:
    known = KnownFingerprints([path])

    def compute() -> str:
        os.utime(path, ns=(0, 0))
        return "of something between"

    assert known.get("checksum", compute) == "of something between"
    assert not (cache_root() / "fingerprints").exists()
    path.unlink()
    assert KnownFingerprints([path]).get("checksum", lambda: "computed") == "computed"
