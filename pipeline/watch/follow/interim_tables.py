"""A run's tables as they would be if it stopped now, in a folder of their own: the run's is not touched."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.plan.plan import Plan
from pipeline.records.journal import History
from pipeline.records.ledger import Ledger
from pipeline.run.run import write_results

#: What a run keeps beside its journal before any table is written, and the report reads.
_BESIDE = ("prompts.parquet", "training")


@contextmanager
def tables_now(folder: Path, plan: Plan, ledger: Ledger, history: History) -> Iterator[Path]:
    """A folder with the run's tables and provenance, for as long as the block lasts.

    Args:
        folder: the run's.
        plan: of the run.
        ledger: its answers.
        history: its proposals, and what it said of itself at its end.

    Raises:
        OSError: there is no space for it.
    """
    known = {"complete": False, "versions": {}, "workers": [], "seconds": {}, "counts": {}, **history.provenance}
    with tempfile.TemporaryDirectory(prefix="lines-now-") as scratch:
        for name in _BESIDE:
            if (folder / name).exists():
                (Path(scratch) / name).symlink_to((folder / name).resolve())
        write_results(Path(scratch), plan, ledger, history.proposals, known)
        yield Path(scratch)
