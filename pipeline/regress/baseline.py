"""A baseline: the snapshot of a run, packed into one small file."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.records.outcomes import packed, unpacked
from pipeline.records.tables import read_parquet, write
from pipeline.regress.snapshot import ScoredModel, Snapshot, snapshot_of
from pipeline.report.data.run import Run
from pipeline.storage.run_folder import run_folder
from search.intervals import Array
from search.significance import is_binary
from tasks.files.object_store import is_url

#: Incremented when the format of the file changes.
BASELINE_VERSION = 1
SUFFIX = ".parquet"
_VERSION, _ABOUT, _DIGEST = b"lines_sweep.baseline_version", b"lines_sweep.about", b"lines_sweep.digest"
_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), False) for name in ("arm", "kind", "group", "control_of", "recipe_id", "recipe")]
    + [pa.field(name, pa.string(), False) for name in ("task", "role", "metric")]
    + [
        pa.field("n", pa.int32(), False),
        # 0 and 1 as bits, the first sample in the highest bit of the first byte; others as little-endian float32
        pa.field("bits", pa.bool_(), False),
        pa.field("outcomes", pa.binary(), False),
    ]
)
_NAMES = ("arm", "kind", "group", "control_of", "recipe_id", "recipe", "task", "role", "metric")


def read_place(place: str) -> Snapshot:
    """Return the snapshot of a finished run, by its folder or URL, or of a baseline, by its file.

    Raises:
        ValueError: if there is neither, the run is unfinished, or the baseline is damaged or has another version.
        RemoteError: if the object store refuses.
    """
    if place.endswith(SUFFIX) and not is_url(place):
        return read_baseline(Path(place))
    with run_folder(place) as folder:
        if not folder.is_dir():
            raise ValueError(f"{place}: there is no such run; the file of a baseline must end in {SUFFIX}")
        if is_url(place) and not any(folder.iterdir()):
            raise ValueError(f"{place}: there is no run")
        return snapshot_of(Run.read(folder), place)


def write_baseline(snapshot: Snapshot, path: Path) -> None:
    """Write a baseline in one step."""
    about, rows = json.dumps(snapshot.about).encode(), [_packed(row) for row in snapshot.rows]
    metadata = {_VERSION: str(BASELINE_VERSION).encode(), _ABOUT: about, _DIGEST: _digest(about, rows)}
    write(path, rows, _SCHEMA.with_metadata(metadata))


def read_baseline(path: Path) -> Snapshot:
    """Return the snapshot in a baseline.

    Raises:
        ValueError: if the file is missing, damaged, or has another version.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file: `lines baseline set RUN {path}` makes a baseline from a run")
    table = read_parquet(path, "make the baseline again")
    metadata = table.schema.metadata or {}
    version = metadata.get(_VERSION, b"none").decode(errors="replace")
    if version != str(BASELINE_VERSION):
        hint = "make it again" if version.isdigit() else "it is another Parquet file"
        raise ValueError(f"{path}: baseline version {version}, this program reads {BASELINE_VERSION}: {hint}")
    try:
        parts = table.cast(_SCHEMA).to_pylist()
        if _digest(metadata[_ABOUT], parts) != metadata.get(_DIGEST):
            raise ValueError("its content does not match its digest")
        rows = tuple(ScoredModel(outcomes_N=_unpacked(row), **{name: row[name] for name in _NAMES}) for row in parts)
        return Snapshot(str(path), json.loads(metadata[_ABOUT]), rows)
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path}: damaged: {error}; make the baseline again") from error


def _digest(about: bytes, rows: Sequence[dict[str, Any]]) -> bytes:
    """A digest of all content: without it, a changed bit of an outcome would go unnoticed."""
    state = hashlib.blake2b(about, digest_size=16)
    for row in rows:
        state.update(repr([row[name] for name in _SCHEMA.names]).encode())
    return state.hexdigest().encode()


def _packed(row: ScoredModel) -> dict[str, Any]:
    bits = is_binary(row.outcomes_N)
    named = {name: getattr(row, name) for name in _NAMES}
    data = packed(row.outcomes_N.astype(bool) if bits else row.outcomes_N)
    return {**named, "n": len(row.outcomes_N), "bits": bits, "outcomes": data}


def _unpacked(row: dict[str, Any]) -> Array:
    values_N = unpacked(row["outcomes"], row["bits"], row["n"]).astype(np.float64)
    if len(values_N) != row["n"]:
        raise ValueError(f"{row['arm']} on {row['task']} has {len(values_N)} outcomes, not {row['n']}")
    return values_N
