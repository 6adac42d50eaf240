"""Small files that a reader finds whole, as they were before or as they are now."""

from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file by way of another one beside it, which then takes its name; text is in UTF-8.

    Raises:
        OSError: it cannot be written; what was there is left as it was.
    """
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return partial.replace(path)
