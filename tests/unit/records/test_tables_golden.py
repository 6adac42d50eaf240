"""Proves that the tables' schemas are those of their version: a changed column needs a new version and a new file."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import flip

from pipeline.records import tables

DATA = Path(__file__).parents[2] / "data"
SCHEMAS = {
    "candidates": tables.CANDIDATES,
    "scores": tables.SCORES,
    "samples": tables.SAMPLES,
    "completions": tables.COMPLETIONS,
    "prompts": tables.PROMPTS,
}


def as_text(schemas: dict[str, pa.Schema]) -> str:
    lines = []
    for name, schema in schemas.items():
        lines += [name, *(f"  {f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in schema)]
    return "\n".join(lines) + "\n"


def test_schemas_are_those_of_their_version() -> None:
    golden = DATA / f"schema_v{tables.SCHEMA_VERSION}.txt"
    assert as_text(SCHEMAS) == golden.read_text(), "raise SCHEMA_VERSION, and write the new schema into a new file"


def test_files_carry_the_version(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    tables.write(path, [{"recipe_id": "a", "split": "val", "outcomes": [0.0, 1.0]}], tables.SAMPLES)
    assert tables.read(path, tables.SAMPLES).to_pylist()[0]["outcomes"] == [0.0, 1.0]
    other = pa.schema(tables.SAMPLES, metadata={b"lines_sweep.schema_version": b"0"})
    tables.write(path, [], other)
    with pytest.raises(ValueError, match="schema version 0"):
        tables.read(path, tables.SAMPLES)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_document_describes_every_column(name: str) -> None:
    document = (DATA.parent.parent / "docs" / "reference" / "results.md").read_text(encoding="utf-8")
    section = document.split(f"## {name}", 1)[1].split("\n## ", 1)[0]
    assert [f.name for f in SCHEMAS[name] if f"| `{f.name}` |" not in section] == []


def test_a_flipped_bit_in_the_data_of_a_table_is_an_error(tmp_path: Path) -> None:
    """Without checksums of pages, two of five flips changed a value and were not noticed."""
    path, rng = tmp_path / "samples.parquet", random.Random(0)
    rows = [
        {"recipe_id": f"{i:08x}", "split": "val", "outcomes": [float(i * k % 7) for k in range(40)]} for i in range(40)
    ]
    tables.write(path, rows, tables.SAMPLES)
    whole, data = tables.read(path, tables.SAMPLES), path.read_bytes()
    found = 0
    for _ in range(300):
        path.write_bytes(data)
        flip(path, rng.randrange(len(data)), rng.randrange(8))
        try:
            assert tables.read(path, tables.SAMPLES).equals(whole)
        except ValueError as error:
            assert str(path) in str(error)
            found += 1
    assert found > 200


def test_a_damaged_table_names_the_command_that_writes_it_again(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    tables.write(path, [{"recipe_id": "a", "split": "val", "outcomes": [0.0, 1.0]}], tables.SAMPLES)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        ValueError, match=r"samples\.parquet: damaged, .*; `lines report RUN` writes the tables of a run again"
    ):
        tables.read(path, tables.SAMPLES)


def test_tables_of_older_versions_have_no_checksums(tmp_path: Path) -> None:
    row = {"recipe_id": "a", "split": "val", "outcomes": [0.0, 1.0]}
    pq.write_table(pa.Table.from_pylist([row], tables.SAMPLES), tmp_path / "old.parquet", compression="zstd")
    assert tables.read(tmp_path / "old.parquet", tables.SAMPLES).to_pylist() == [row]
