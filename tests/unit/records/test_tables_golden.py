"""Proves that the tables' schemas are those of their version: a changed column needs a new version and a new file."""

from pathlib import Path

import pyarrow as pa
import pytest

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
