"""Files that are replaced in one step: a reader finds the old content or the new, never a part."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Suffix of files that are being written; a killed process may leave one.
PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, for this thread only, and rename it to `path` at the end.

    Raises:
        OSError: if it cannot be written; an existing file stays as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> Path:
    """Replace a file in one step, and return its path; text is written as UTF-8.

    Raises:
        OSError: if it cannot be written; an existing file stays as it was.
    """
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
