"""Files that a reader finds whole, as they were before or as they are now."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Of files that are still written, whose process may have been killed.
PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which then takes its name; it is this thread's alone.

    Raises:
        OSError: it cannot be written; what was there is left as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file by way of another one beside it; text is in UTF-8.

    Raises:
        OSError: it cannot be written; what was there is left as it was.
    """
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
