"""Damage to files, as a failing disk does it."""

from pathlib import Path


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Change one bit of a file, for processes that open it later; a negative offset counts from its end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.unlink()  # what has the old file mapped keeps it
    path.write_bytes(data)
