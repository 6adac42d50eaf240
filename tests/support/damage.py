"""Damage to files, as a failing disk does it."""

from pathlib import Path


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Change one bit of a file; a negative offset counts from its end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)
