"""Bytes with a first line that says what they are and what their hash is: what was cut or changed is found out."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK = 1 << 20
_LONGEST = 4096
_DIGEST = 16


class DamagedError(ValueError):
    """Not the bytes that were sealed."""


def seal(body: bytes, **fields: Any) -> bytes:
    """The bytes behind a line of JSON with their size, hash and `fields`."""
    return _line(len(body), _digest(body), fields) + body


def unseal(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Inverse of `seal`: the fields, and the bytes.

    Raises:
        DamagedError: the bytes are not those that were sealed.
    """
    line, newline, body = data.partition(b"\n")
    fields = _fields(line + newline)
    if fields.pop("size") != len(body) or fields.pop("blake2b") != _digest(body):
        raise DamagedError("its content is not what was written (size or hash differ)")
    return fields, body


def seal_file(source: Path, target: Path) -> None:
    """`seal` of a file too large for memory."""
    state = hashlib.blake2b(digest_size=_DIGEST)
    with source.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    with source.open("rb") as file, target.open("wb") as sealed:
        sealed.write(_line(source.stat().st_size, state.hexdigest(), {}))
        shutil.copyfileobj(file, sealed, _BLOCK)


def check_file(file: BinaryIO) -> None:
    """Check a sealed file, and leave it open at the first of its own bytes.

    Raises:
        DamagedError: it is not what was sealed.
    """
    fields = _fields(file.readline(_LONGEST))
    start, state = file.tell(), hashlib.blake2b(digest_size=_DIGEST)
    while block := file.read(_BLOCK):
        state.update(block)
    if fields["size"] != file.tell() - start or fields["blake2b"] != state.hexdigest():
        raise DamagedError("its content is not what was written (size or hash differ)")
    file.seek(start)


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
        raise DamagedError("its first line does not say what it holds")
    return fields
