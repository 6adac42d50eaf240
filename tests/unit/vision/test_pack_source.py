"""Proves that packs and their shifted sets have the parent's classes and the stored pixels."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.vision.decoded import prepare
from tasks.vision.packs import PackSource
from tasks.vision.preprocess import Preprocess


def pack(path: Path, name: str, classes: list[str], parent: str | None = None, seed: int = 0) -> Path:
    rng, rows = np.random.default_rng(seed), 12
    splits = ["test"] * rows if parent else ["train", "val", "test", "test"] * (rows // 4)
    metadata = {"name": name, "classes": classes, "templates": [f"{name} {{}}"], "size": 32}
    metadata |= {"role": "ood" if parent else "task", "shifted_from": parent}
    table = pa.table(
        {
            "image": pa.array([rng.bytes(3072) for _ in range(rows)], pa.binary(3072)),
            "label": pa.array([i % len(classes) for i in range(rows)], pa.int16()),
            "split": splits,
        }
    )
    pq.write_table(table.replace_schema_metadata({"lines_sweep": json.dumps(metadata)}), path)
    return path


def test_packs_and_their_shifted_sets_share_the_parents_classes(tmp_path: Path) -> None:
    parent = PackSource(pack(tmp_path / "digits.parquet", "digits", ["zero", "one", "two"]))
    shifted = PackSource(pack(tmp_path / "worn.parquet", "worn", ["two", "zero"], parent="digits"))
    assert (shifted.role, shifted.shifted_from) == ("ood", "digits")
    assert list(shifted.class_names) == list(parent.class_names) and shifted.templates == ["digits {}"]
    assert [r.label for r in shifted.records()["test"]][:3] == [2, 0, 2]
    assert {s: len(r) for s, r in parent.records().items()} == {"val": 3, "test": 6}
    exact = Preprocess((32, 32), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), "bicubic", "shortest")
    images = prepare(parent, exact)["test"]
    rows = pq.read_table(tmp_path / "digits.parquet").to_pylist()
    stored = {row["image"]: row["label"] for row in rows if row["split"] == "test"}
    assert {x.numpy().tobytes(): int(y) for x, y in zip(images.slice(0, 6), images.labels_N, strict=True)} == stored


def test_bad_packs_are_explained(tmp_path: Path) -> None:
    pack(tmp_path / "digits.parquet", "digits", ["zero", "one"])
    with pytest.raises(ValueError, match="class 'on' is not in 'digits'; did you mean 'one'"):
        PackSource(pack(tmp_path / "worn.parquet", "worn", ["zero", "on"], parent="digits"))
    with pytest.raises(ValueError, match="no such pack; did you mean 'digits'"):
        PackSource(tmp_path / "digit.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "digits.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"torn\.parquet: cannot be read as Parquet"):
        PackSource(tmp_path / "torn.parquet")
    with pytest.raises(ValueError, match="not a task pack"):
        PackSource(tmp_path / "other.parquet")
