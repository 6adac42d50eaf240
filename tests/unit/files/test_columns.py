"""Proves that columns of tables are Arrow's own, byte for byte in Parquet, and need no pandas."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.files.columns import column

COLUMNS: dict[str, tuple[list[Any], pa.DataType]] = {
    "no rows": ([], pa.string()),
    "no numbers": ([], pa.int32()),
    "no lists": ([], pa.list_(pa.float64())),
    "texts": (["a", "", "\u00e9\n", "\U0001f600" * 3], pa.string()),
    "texts and nulls": (["a", None, "b"] * 5, pa.string()),
    "Booleans": ([True, False, True] * 3, pa.bool_()),
    "Booleans and nulls": ([None, False, True], pa.bool_()),
    "whole numbers": ([0, -(2**31), 2**31 - 1], pa.int32()),
    "fractions for whole numbers": ([1.5, -1.5], pa.int32()),
    "large numbers": ([2**62 + 1, None, -5], pa.int64()),
    "numbers": ([0.1, 2, float("nan"), float("inf"), None, -0.0, np.float64(1 / 3)], pa.float64()),
    "nulls alone": ([None, None], pa.float64()),
    "short numbers": ([0.1, 1e-46, None], pa.float32()),
    "lists": ([[0.1, 2.0], [], None, [1.0]], pa.list_(pa.float64())),
    "lists of nulls": ([[1, None], [None]], pa.list_(pa.int64())),
    "lists of texts": ([["a", "b"], [], None], pa.list_(pa.string())),
    "arrays": ([np.arange(3, dtype=np.float32), np.zeros(0, np.float32)], pa.list_(pa.float32())),
    "arrays and nulls": ([np.arange(3, dtype=np.float32), None, [1.0]], pa.list_(pa.float32())),
    "another type": ([b"a", None], pa.binary()),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_those_of_arrow(name: str, tmp_path: Path) -> None:
    values, kind = COLUMNS[name]
    made, expected = column(values, kind), pa.array(values, kind)
    made.validate(full=True)
    assert made.type == expected.type and str(made.to_pylist()) == str(expected.to_pylist())
    for file, array in (("made", made), ("expected", expected)):
        pq.write_table(pa.table({"a": array}), tmp_path / file, compression="zstd")
    assert (tmp_path / "made").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize(
    ("value", "kind", "error"),
    [
        ("1.5", pa.float64(), TypeError),
        (2**40, pa.int32(), OverflowError),
        (1, pa.string(), TypeError),
        (["1"], pa.list_(pa.int64()), TypeError),
    ],
)
def test_what_does_not_fit_is_refused(value: object, kind: pa.DataType, error: type[Exception]) -> None:
    with pytest.raises(error):
        column([value], kind)
    with pytest.raises((pa.ArrowException, TypeError)):
        pa.array([value], kind)


def test_tables_are_written_and_read_without_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.records import tables\n"
        "path, row = Path(sys.argv[1]), {'recipe_id': 'a', 'split': 'val', 'outcomes': [1.0, 0.0]}\n"
        "tables.write(path, [row], tables.SAMPLES); assert tables.read(path, tables.SAMPLES).to_pylist() == [row]\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.parquet")], check=True, cwd=Path(__file__).parents[3])
