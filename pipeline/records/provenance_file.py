"""provenance.json: the facts of a run as indented JSON, whose last field is the CRC-32 of all bytes before it."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.files.atomic import write_whole

FILE_NAME = "provenance.json"
_CHECKSUM, _REST = b',\n  "checksum": "', b'"\n}\n'


def write_provenance(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the file into a run's folder in one step."""
    head = json.dumps(facts, indent=2).encode().removesuffix(b"\n}")
    write_whole(folder / FILE_NAME, b"%b%b%08x%b" % (head, _CHECKSUM, zlib.crc32(head), _REST))


def read_provenance(path: Path) -> dict[str, Any]:
    """Return the facts in a file, without the checksum; older versions wrote none.

    Raises:
        ValueError: if the file is damaged.
    """
    data = path.read_bytes()
    head, found, digits = data.rpartition(_CHECKSUM)
    try:
        if found and digits != b"%08x%b" % (zlib.crc32(head), _REST):
            raise ValueError("it does not match its checksum")
        facts = json.loads(head + b"}" if found else data)
        if not isinstance(facts, dict) or "checksum" in facts:
            raise ValueError("it is not what was written")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({error}); `lines report RUN` writes it again from the journal") from error
    return facts
