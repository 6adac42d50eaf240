"""The tables of an unfinished run, in a temporary folder: the run's own folder is not touched."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.records.journal import History
from pipeline.run.run import write_results
from pipeline.watch.follow.run_view import RunView

#: Files that a run keeps next to its journal before any table is written, and that the report reads.
_BESIDE = ("prompts.parquet", "training")


@contextmanager
def interim_tables(folder: Path, view: RunView, history: History) -> Iterator[Path]:
    """Yield a temporary folder with the tables and provenance of the run in `folder`, for the answers so far.

    Raises:
        OSError: if no space is left.
    """
    known = {"complete": False, "versions": {}, "workers": [], "seconds": {}, "counts": {}, **history.provenance}
    with tempfile.TemporaryDirectory(prefix="lines-now-") as scratch:
        for name in _BESIDE:
            if (folder / name).exists():
                (Path(scratch) / name).symlink_to((folder / name).resolve())
        write_results(Path(scratch), view.plan, view.ledger, history.proposals, known)
        yield Path(scratch)
