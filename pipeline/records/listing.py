"""The runs below a folder: what each is, whether it ended, and what it chose."""

import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import pyarrow.compute as pc

from pipeline.records import provenance_file, tables
from pipeline.records.journal import FILE_NAME, has_ended
from pipeline.records.provenance_file import read_provenance

#: Folders within folders that are searched for runs; models and exports lie deeper.
_DEPTH = 4


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run.

    Attributes:
        place: its folder, relative to the one that was listed.
        state: finished; running: a process is writing; stopped: it may be resumed.
        changed: seconds since the epoch of the journal's last change.
        candidates: number of candidates in its tables; None if it has none yet, or they cannot be read.
        best: arm whose chosen candidates have the highest objective on validation, in the mean over its experts; "" if
            none was chosen, or values cannot be compared: of several objectives, or of both edits and merges.
        objective: the value of this objective.
        maximised: the objectives of the arms that chose, each once, as the spec writes them.
    """

    place: str
    state: Literal["finished", "running", "stopped"]
    changed: float
    candidates: int | None = None
    best: str = ""
    objective: float | None = None
    maximised: tuple[str, ...] = ()


def list_runs(folder: Path) -> list[ListedRun]:
    """Return the runs in a folder and below it, the newest first.

    Raises:
        ValueError: if there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; name the one that holds your runs")
    return sorted((_listed(path.parent, folder) for path in _journals(folder)), key=lambda run: -run.changed)


def _journals(folder: Path) -> Iterator[Path]:
    for depth in range(_DEPTH):
        yield from folder.glob(f"{'*/' * depth}{FILE_NAME}")


def _listed(run: Path, folder: Path) -> ListedRun:
    journal = run / FILE_NAME
    state: Literal["finished", "running", "stopped"] = "finished" if has_ended(run) else "stopped"
    state = "running" if _is_locked(journal) else state
    place, changed = run.relative_to(folder).as_posix(), journal.stat().st_mtime
    try:
        candidates = tables.read(run / "candidates.parquet", tables.CANDIDATES)
        objectives = read_provenance(run / provenance_file.FILE_NAME)["objectives"]
    except (ValueError, OSError, KeyError):
        return ListedRun(place, state, changed)
    chosen = candidates.filter(pc.and_(candidates["chosen"], pc.is_valid(candidates["objectives"])))
    values: dict[str, list[float]] = {}
    for row in chosen.select(["arm", "objectives"]).to_pylist():
        values.setdefault(row["arm"], []).append(row["objectives"][0])
    maximised = tuple(dict.fromkeys(objective for arm in values for objective in objectives.get(arm, ())))
    known = values.keys() <= objectives.keys()
    comparable = known and len(maximised) == 1 and len(chosen["kind"].unique()) == 1
    found = [(fmean(of), arm) for arm, of in values.items()] if comparable else []
    objective, best = max(found, key=lambda pair: pair[0], default=(None, ""))
    return ListedRun(place, state, changed, candidates.num_rows, best, objective, maximised)


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
