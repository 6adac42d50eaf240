"""Proves that the list of sums fits the embedded files, and that a damaged one is not read."""

import shutil
from pathlib import Path

import pytest
from damage import flip

from tasks.embedded import pack_names, pack_path, sums
from tasks.vision.packs import PackSource


def test_the_list_names_every_pack_and_checkpoint_with_its_sum() -> None:
    root = sums.SUMS.parent
    names = {line.split("  ")[1] for line in sums.SUMS.read_text().splitlines()}
    assert {f"packs/{name}.parquet" for name in pack_names()} < names
    assert names == {
        p.relative_to(root).as_posix() for kind in ("**/*.parquet", "**/*.safetensors") for p in root.glob(kind)
    }
    for name in names:
        sums.check(root / name)


def test_a_flipped_bit_of_an_embedded_pack_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packs").mkdir()
    path = Path(shutil.copy(pack_path("mnist"), tmp_path / "packs"))
    monkeypatch.setattr(sums, "_ROOT", tmp_path)
    assert PackSource(path).class_names[0]
    flip(path, 100_000)
    sums.check.cache_clear()
    with pytest.raises(ValueError, match=r"mnist\.parquet: damaged: its SHA-256 .* `git checkout packs/mnist.parquet`"):
        PackSource(path)
