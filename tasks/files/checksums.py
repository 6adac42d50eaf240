"""Bytes behind a first line with their size and hash, by which truncation and changes are detected."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK = 1 << 20
_LONGEST_LINE = 4096
_DIGEST = 16
_CHANGED = "its content is not what was written (size or hash differ)"


class DamagedError(ValueError):
    """The bytes are not the ones that were sealed."""


def seal(body: bytes, **fields: Any) -> bytes:
    """Return the bytes behind a line of JSON with `fields`, their size and their hash."""
    return _line(len(body), _digest(body), fields) + body


def unseal(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the fields and the bytes of `seal`.

    Raises:
        DamagedError: if size or hash differ, or the first line is not one of `seal`.
    """
    line, newline, body = data.partition(b"\n")
    fields = _fields(line + newline)
    if fields.pop("size") != len(body) or fields.pop("blake2b") != _digest(body):
        raise DamagedError(_CHANGED)
    return fields, body


def seal_file(source: Path, target: Path) -> None:
    """Write what `seal` returns for a file too large for memory."""
    with source.open("rb") as file, target.open("wb") as sealed:
        state = _hash_rest(file)
        sealed.write(_line(file.tell(), state, {}))
        file.seek(0)
        shutil.copyfileobj(file, sealed, _BLOCK)


def check_file(file: BinaryIO) -> None:
    """Check a sealed file, and leave it open at the first byte of its content.

    Raises:
        DamagedError: if size or hash differ, or the first line is not one of `seal`.
    """
    fields = _fields(file.readline(_LONGEST_LINE))
    start = file.tell()
    state = _hash_rest(file)
    if fields["size"] != file.tell() - start or fields["blake2b"] != state:
        raise DamagedError(_CHANGED)
    file.seek(start)


def _hash_rest(file: BinaryIO) -> str:
    state = hashlib.blake2b(digest_size=_DIGEST)
    while block := file.read(_BLOCK):
        state.update(block)
    return state.hexdigest()


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=_DIGEST).hexdigest()


def _line(size: int, digest: str, fields: dict[str, Any]) -> bytes:
    return json.dumps({**fields, "size": size, "blake2b": digest}, separators=(",", ":")).encode() + b"\n"


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise DamagedError(f"its first line is not JSON ({error})") from error
    if not line.endswith(b"\n") or not isinstance(fields, dict) or not fields.keys() >= {"size", "blake2b"}:
        raise DamagedError("its first line lacks size or hash")
    return fields
