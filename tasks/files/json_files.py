"""JSON of others: what is not JSON, or nested too deeply, ends in an error that names the file."""

import json
from pathlib import Path
from typing import Any


def parse_json(data: str | bytes, subject: str) -> Any:
    """Parse JSON.

    Args:
        data: the content.
        subject: the first words of errors.

    Raises:
        ValueError: if it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError(f"{subject}: not JSON (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"{subject}: not JSON ({error})") from error


def read_object(path: Path, subject: str) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        ValueError: if it cannot be read, is not JSON, or holds something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{subject}: cannot be read: {error.strerror}") from error
    found = parse_json(data, subject)
    if not isinstance(found, dict):
        raise ValueError(f"{subject}: must hold a mapping, got {type(found).__name__}")
    return found
