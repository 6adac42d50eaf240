"""The first record of a journal: the run's spec and identity. Read without numpy and Arrow, for shell completion."""

from itertools import islice
from pathlib import Path

from pipeline.records.append_log import Record, record_at, whole_lines

FILE_NAME = "journal.jsonl"


def read_header(folder: Path) -> Record | None:
    """Return the first record of a run's journal; None if there is none yet.

    Raises:
        ValueError: if it is damaged; file and line are named.

    Example:
        >>> header = read_header(Path("runs/demo"))  # doctest: +SKIP
        >>> list(header["spec"]["arms"])[0]  # doctest: +SKIP
        'zero-shot'
    """
    path = folder / FILE_NAME
    return next((record_at(path, 1, line) for line in islice(whole_lines(path), 1)), None)
