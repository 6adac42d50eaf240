"""Proves that the embedded packs are well-formed and free of leaks, and that the checkpoints fit their model."""

from __future__ import annotations

import gzip
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

import tasks.embedded

EMBEDDED = Path(tasks.embedded.__file__).parent
CHECKPOINTS = EMBEDDED / "checkpoints"
FILES = {path.stem: path for path in sorted((EMBEDDED / "packs").glob("*.parquet"))}
NEAR = 0.98
SCHEMA = pa.schema(
    [
        ("image", pa.binary(3 * 32 * 32)),
        ("label", pa.int16()),
        ("split", pa.string()),
        ("key", pa.string()),
        ("source", pa.string()),
    ]
)


@cache
def pack(name: str) -> tuple[dict[str, Any], pa.Table]:
    """Read metadata and rows of one pack."""
    table = pq.read_table(FILES[name])
    return json.loads(table.schema.metadata[b"lines_sweep"]), table


@cache
def rows(name: str, split: str) -> pa.Table:
    """Return the rows of one split."""
    _, table = pack(name)
    return table.filter(pa.array([s == split for s in table["split"].to_pylist()]))


TASKS = [name for name in FILES if pack(name)[0]["role"] == "task"]
SHIFTED = [name for name in FILES if pack(name)[0]["role"] == "ood"]


@cache
def digests(name: str, split: str) -> frozenset[bytes]:
    """Return the SHA-256 of every image of a split."""
    return frozenset(hashlib.sha256(image).digest() for image in rows(name, split)["image"].to_pylist())


@cache
def signatures(name: str, split: str) -> NDArray[np.float32]:
    """Return unit vectors (n, 256) of the centred 16 x 16 grey images."""
    raw = b"".join(rows(name, split)["image"].to_pylist())
    grey = np.frombuffer(raw, np.uint8).reshape(-1, 3, 32, 32).mean(1, dtype=np.float32)
    small = grey.reshape(-1, 16, 2, 16, 2).mean((2, 4)).reshape(len(grey), 256)
    small -= small.mean(1, keepdims=True)
    unit: NDArray[np.float32] = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    return unit


@cache
def model() -> CLIP:
    """Build the model of ``tiny-vit.json``."""
    config = json.loads((CHECKPOINTS / "tiny-vit.json").read_text())
    return CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])


@cache
def checkpoint(name: str) -> dict[str, torch.Tensor]:
    """Load the tensors of one checkpoint."""
    return load_file(CHECKPOINTS / f"{name}.safetensors")


def assert_finite_halves(state: dict[str, torch.Tensor]) -> None:
    """Every tensor is float16 and finite."""
    assert {v.dtype for v in state.values()} == {torch.float16}
    assert torch.cat([v.flatten() for v in state.values()]).isfinite().all()


def test_enough_tasks_domains_and_shifted_sets() -> None:
    assert len(TASKS) >= 8
    assert len({pack(name)[0]["domain"] for name in TASKS}) >= 4
    assert len(SHIFTED) >= 3
    assert {pack(name)[0]["shifted_from"] for name in SHIFTED} <= set(TASKS)


def test_everything_is_small() -> None:
    files = [*FILES.values(), *CHECKPOINTS.iterdir()]
    assert sum(path.stat().st_size for path in files) < 60e6


@pytest.mark.parametrize("name", FILES)
def test_schema_and_metadata(name: str) -> None:
    metadata, table = pack(name)
    assert table.schema.remove_metadata() == SCHEMA
    expected = {"name", "domain", "classes", "templates", "size", "role", "shifted_from", "license", "sources"}
    assert set(metadata) == expected
    assert metadata["name"] == name
    assert metadata["size"] == 32
    assert len(set(metadata["classes"])) == len(metadata["classes"])
    assert all(template.count("{}") == 1 for template in metadata["templates"])
    assert metadata["license"]
    assert "GPL" not in metadata["license"]
    assert set(table["source"].to_pylist()) == set(metadata["sources"])
    labels = table["label"].to_numpy()
    assert labels.min() >= 0
    assert labels.max() < len(metadata["classes"])
    assert all(column.null_count == 0 for column in table.columns)


@pytest.mark.parametrize("name", TASKS)
def test_task_counts_and_classes(name: str) -> None:
    classes = set(range(len(pack(name)[0]["classes"])))
    for split, least in (("train", 1000), ("val", 300), ("test", 900)):
        part = rows(name, split)
        present = set(part["label"].to_pylist())
        assert part.num_rows >= least
        assert present <= classes
        # A class drawn from a handful of large keys can be left without a validation key.
        assert len(present) >= (0.95 if split == "val" else 1) * len(classes), split


@pytest.mark.parametrize("name", SHIFTED)
def test_shifted_sets_hold_only_a_test_split_with_the_task_s_classes(name: str) -> None:
    metadata, table = pack(name)
    assert set(table["split"].to_pylist()) == {"test"}
    assert table.num_rows >= 300
    assert metadata["classes"] == pack(metadata["shifted_from"])[0]["classes"]


@pytest.mark.parametrize("name", TASKS)
def test_keys_and_pixels_stay_in_one_split(name: str) -> None:
    keys = [set(rows(name, split)["key"].to_pylist()) for split in ("train", "val", "test")]
    pixels = [digests(name, split) for split in ("train", "val", "test")]
    for parts in (keys, pixels):
        assert sum(map(len, parts)) == len(set().union(*parts))
    assert len(pixels[0]) == rows(name, "train").num_rows


@pytest.mark.parametrize("name", TASKS)
def test_no_near_duplicates_between_splits(name: str) -> None:
    train, val, test = (signatures(name, split) for split in ("train", "val", "test"))
    assert np.abs(train @ np.concatenate([val, test]).T).max() < NEAR + 1e-3
    assert np.abs(val @ test.T).max() < NEAR + 1e-3


@pytest.mark.parametrize("name", SHIFTED)
def test_shifted_sets_do_not_repeat_the_training_images(name: str) -> None:
    base = pack(name)[0]["shifted_from"]
    assert not digests(name, "test") & digests(base, "train")
    assert np.abs(signatures(name, "test") @ signatures(base, "train").T).max() < NEAR + 1e-3


def test_base_checkpoint_fits_the_model() -> None:
    state = checkpoint("base")
    expected = {k: v.shape for k, v in model().state_dict().items() if k != "attn_mask"}
    assert {k: v.shape for k, v in state.items()} == expected
    assert_finite_halves(state)


@pytest.mark.parametrize("name", TASKS)
def test_expert_checkpoint_fits_the_image_tower(name: str) -> None:
    base, expert = checkpoint("base"), checkpoint(name)
    expected = {f"visual.{k}": v.shape for k, v in model().visual.state_dict().items()}
    assert {k: v.shape for k, v in expert.items()} == expected
    assert_finite_halves(expert)
    assert any(not torch.equal(v, base[k]) for k, v in expert.items())


def test_tokenizer_has_the_configured_vocabulary() -> None:
    config = json.loads((CHECKPOINTS / "tiny-vit.json").read_text())["text_cfg"]
    path = CHECKPOINTS / "bpe_2048.txt.gz"
    assert gzip.decompress(path.read_bytes()).startswith(b'"bpe_simple_vocab')
    tokenizer = SimpleTokenizer(bpe_path=str(path), context_length=config["context_length"])
    assert tokenizer.vocab_size == config["vocab_size"]
    assert tokenizer(["a photo of a cat"]).shape == (1, config["context_length"])
