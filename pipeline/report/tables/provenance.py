"""The origin of the numbers: checkpoints, data, versions and counts, and how to read the tables."""

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.report.data.run import Run
from pipeline.report.tables.table import NONE, Table, TableCell

#: One line each, to be run in the run folder; docs/reference/results.md has the same lines, and a test executes them.
READERS = (
    ("pyarrow", 'pyarrow.parquet.read_table("scores.parquet")'),
    ("pandas", 'pandas.read_parquet("scores.parquet")'),
    (
        "DuckDB",
        "duckdb.sql(\"SELECT arm, role, avg(value) FROM 'scores.parquet' WHERE split = 'test' GROUP BY arm, role\")",
    ),
)


def origin_tables(run: Run) -> list[Table]:
    """Return the provenance of a run as tables."""
    origin = run.provenance
    devices = {worker["name"]: worker["device"] for worker in origin["workers"]}
    return [
        _task_table(origin["tasks"]),
        *_calibration(origin.get("calibration")),
        _pairs("Checkpoints", "Content fingerprints.", ("checkpoint", "fingerprint"), origin["checkpoints"], "code"),
        _pairs("Counts", "", ("what", "number"), _counts(run)),
        _pairs("Workers", origin["numerics"], ("worker", "device"), devices),
        _pairs("Versions", "", ("package", "version"), origin["versions"]),
    ]


def _calibration(samples: Mapping[str, int] | None) -> list[Table]:
    """Return how the statistics of batch normalisation were measured, if the model has them."""
    if not samples:
        return []
    note = (
        "Measured for every candidate on the first validation samples of each task, without labels. The pre-trained "
        "model and the unscaled experts have those of their files."
    )
    return [_pairs("Statistics of batch normalisation", note, ("task", "samples"), samples)]


def spec_text(run: Run) -> str:
    """Return the spec with its defaults filled in, as YAML, without empty entries."""
    spec = _filled(run.provenance["spec"])
    return str(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None))


def _filled(value: object) -> object:
    """The value without empty entries, at any depth."""
    if isinstance(value, dict):
        kept = {key: _filled(entry) for key, entry in value.items()}
        return {key: entry for key, entry in kept.items() if entry is not None and entry not in ({}, [], "")}
    return [_filled(entry) for entry in value] if isinstance(value, list) else value


def _counts(run: Run) -> dict[str, object]:
    """The counts and the seconds, with readable names."""
    counts = {key.replace("_", " "): f"{value:,}" for key, value in run.provenance["counts"].items()}
    seconds = {f"seconds, {key}": f"{value:.1f}" for key, value in run.provenance["seconds"].items()}
    return counts | seconds | {"schema version": run.provenance["schema_version"]}


def _pairs(title: str, note: str, columns: tuple[str, str], pairs: Mapping[str, object], tone: str = "") -> Table:
    rows = tuple((TableCell(str(key)), TableCell(str(value), tone=tone)) for key, value in pairs.items())
    return Table(title, note, columns, rows)


def _task_table(tasks: list[dict[str, Any]]) -> Table:
    rows = []
    for task in tasks:
        kind = f"shifted from {task['shifted_from']}" if task.get("shifted_from") else task["role_hint"]
        counts = [TableCell(str(task["n"].get(split, NONE))) for split in ("val", "test")]
        rows.append((TableCell(task["name"]), TableCell(kind), *counts, TableCell(task["fingerprint"], tone="code")))
    note = "A fingerprint covers the data, the class names and the templates."
    return Table("Tasks", note, ("task", "kind", "validation", "test", "fingerprint"), tuple(rows))
