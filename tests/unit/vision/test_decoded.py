"""Proves that images are decoded once, as open_clip does, split by content without leaks, and cached whole or not."""

import io
import logging
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from damage import flip
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.files.cache import cache_root
from tasks.vision.decoded import prepare, prepared_folder
from tasks.vision.folders import FolderSource
from tasks.vision.images import ImageRecord, content_hash, in_validation, ordered, without_leaks
from tasks.vision.preprocess import Preprocess

PLAIN = Preprocess((16, 16), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), "bicubic", "shortest")


def picture(seed: int, width: int = 24, height: int = 20, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def folder(root: Path, names: list[str], seed: int = 0) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed + i).save(root / name)
    return root


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("shape", [(24, 20), (13, 40), (16, 16)])
def test_pixels_are_those_of_open_clips_own_preprocessing(
    tmp_path: Path, mode: str, resize_mode: str, shape: tuple[int, int]
) -> None:
    preprocess = Preprocess((16, 16), PLAIN.mean, PLAIN.std, "bicubic", resize_mode)
    image = picture(0, *shape, mode=mode)
    own = open_clip.image_transform(
        16, is_train=False, mean=PLAIN.mean, std=PLAIN.std, resize_mode=resize_mode, interpolation="bicubic"
    )(image)
    pixels = torch.from_numpy(preprocess.resizer()(image))
    torch.testing.assert_close(preprocess.normalise(pixels[None], torch.float32)[0], own, rtol=0, atol=0)


def test_a_folder_is_decoded_once_and_then_mapped(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", [f"{c}/{i}.png" for c in ("big_cat", "dog") for i in range(30)])
    seen: list[tuple[int, int]] = []
    first = prepare(FolderSource(root, val_fraction=0.3), PLAIN, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (60, 60) and len(first["val"]) + len(first["test"]) == 60
    seen.clear()
    second = prepare(FolderSource(root, val_fraction=0.3), PLAIN, lambda done, total: seen.append((done, total)))
    assert not seen
    for split, images in first.items():
        assert torch.equal(images.slice(0, len(images)), second[split].slice(0, len(images)))
        assert images.fingerprint == second[split].fingerprint
    by_hash = {content_hash(p.read_bytes()).hex(): p for p in root.rglob("*.png")}
    for i, key in enumerate(first["test"].keys):
        expected = PLAIN.resizer()(Image.open(by_hash[key]))
        assert np.array_equal(first["test"].slice(i, i + 1)[0].numpy(), expected)
        assert first["test"].labels_N[i] == (by_hash[key].parent.name == "dog")


def test_names_of_classes_come_from_folders_or_from_the_options(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", ["big_cat/0.png", "dog/1.jpg"])
    assert FolderSource(root).class_names == ["big cat", "dog"]
    assert FolderSource(root, class_names={"dog": "hound"}).class_names == ["big cat", "hound"]
    with pytest.raises(ValueError, match="class_names: no class folder 'dogs'; did you mean 'dog'"):
        FolderSource(root, class_names={"dogs": "hound"})
    with pytest.raises(ValueError, match="class_names: must be a mapping of class folder to name"):
        FolderSource(root, class_names=["cat", "dog"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("splits", "val_from", "test_from"),
    [
        (["train", "val", "test"], "val", "test"),
        (["val", "test"], "val", "test"),
        (["train", "test"], "train", "test"),
        (["train", "val"], "val", "val"),
        (["test"], None, "test"),
    ],
)
def test_split_folders(tmp_path: Path, splits: list[str], val_from: str | None, test_from: str) -> None:
    root = folder(tmp_path, [f"{s}/{c}/{i}.png" for s in splits for c in "ab" for i in range(20)])
    records = FolderSource(root, val_fraction=0.5).records()

    def origins(split: str) -> set[str]:
        return {Path(r.name).relative_to(root).parts[0] for r in records.get(split, [])}

    assert origins("val") == ({val_from} if val_from else set())
    assert origins("test") == {test_from}
    assert not {r.digest for r in records.get("val", [])} & {r.digest for r in records["test"]}


def test_bad_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        FolderSource(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no class folders"):
        FolderSource(tmp_path / "empty")
    with pytest.raises(ValueError, match="holds train only"):
        FolderSource(folder(tmp_path / "train_only", ["train/a/0.png"]))
    with pytest.raises(ValueError, match="holds 'cats' beside"):
        FolderSource(folder(tmp_path / "mixed", ["val/a/0.png", "cats/0.png"]))
    with pytest.raises(ValueError, match=r"val_fraction: must be in \(0, 1\), got 1"):
        FolderSource(folder(tmp_path / "whole", ["a/0.png"]), val_fraction=1)
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no images"):
        prepare(FolderSource(tmp_path / "hollow"), PLAIN)


def test_a_broken_image_is_named_and_leaves_no_cache(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", ["a/0.png", "a/1.png"])
    data = (root / "a/1.png").read_bytes()
    (root / "a/1.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"1\.png: cannot decode"):
        prepare(FolderSource(root), PLAIN)
    assert not [p for p in (cache_root() / "images").iterdir() if p.suffix != ".lock"]
    picture(9).save(root / "a/1.png")
    assert sum(map(len, prepare(FolderSource(root), PLAIN).values())) == 2


def test_changed_files_are_decoded_again(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", ["test/a/0.png"])
    before = prepare(FolderSource(root), PLAIN)["test"].fingerprint
    picture(5).save(root / "test/a/0.png")
    assert prepare(FolderSource(root), PLAIN)["test"].fingerprint != before


def test_copies_do_not_straddle_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path / "own", [f"{s}/a/{i}.png" for s in ("val", "test") for i in range(4)])
    (root / "val/a/copy.png").write_bytes((root / "test/a/0.png").read_bytes())
    with caplog.at_level(logging.WARNING):
        splits = prepare(FolderSource(root), PLAIN)
    assert len(splits["val"]) == 4 and len(splits["test"]) == 4
    assert "left 1 images out of val" in caplog.text
    plain = folder(tmp_path / "plain", [f"a/{i}.png" for i in range(20)])
    for i in range(20):
        (plain / f"a/copy{i}.png").write_bytes((plain / f"a/{i}.png").read_bytes())
    cut = prepare(FolderSource(plain, val_fraction=0.5), PLAIN)
    assert len(cut["val"]) + len(cut["test"]) == 40 and not set(cut["val"].keys) & set(cut["test"].keys)


@given(st.lists(st.binary(min_size=1, max_size=8), unique=True), st.floats(0.01, 0.99), st.randoms())
def test_splits_and_order_depend_on_content_alone(contents: list[bytes], fraction: float, random: object) -> None:
    records = [ImageRecord("", 0, content_hash(c), Path()) for c in contents]
    shuffled = records.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ordered(records) == ordered(shuffled)
    val = {r.digest for r in records if in_validation(r.digest, fraction)}
    assert val <= {r.digest for r in records if in_validation(r.digest, min(0.99, fraction + 0.1))}


def test_the_fraction_is_met_and_order_is_independent_of_the_split() -> None:
    digests = [content_hash(str(i).encode()) for i in range(4000)]
    records = ordered(ImageRecord("", 0, d, Path()) for d in digests)
    shares = [sum(in_validation(r.digest, 0.2) for r in part) / 2000 for part in (records[:2000], records[2000:])]
    assert all(abs(share - 0.2) < 0.03 for share in shares)


def test_without_leaks_keeps_test_whole() -> None:
    a, b = (ImageRecord(n, 0, content_hash(n.encode()), Path()) for n in "ab")
    assert without_leaks({"val": [a, b], "test": [b, b]}, "x") == {"val": [a], "test": [b, b]}


def test_slices_cross_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "set", [f"test/a/{i}.png" for i in range(11)])
    monkeypatch.setattr("tasks.vision.decoded.CHUNK_UNIT", 4)
    monkeypatch.setattr("tasks.vision.decoded.CHUNK_BYTES", 1)
    images = prepare(FolderSource(root), PLAIN)["test"]
    assert [len(c) for c in images.chunks] == [4, 4, 3]
    whole = torch.cat(images.chunks)
    for start in range(11):
        for stop in range(start + 1, 12):
            assert torch.equal(images.slice(start, stop), whole[start:stop])
    assert images.to(torch.device("cpu"), 6) is images
    moved = images.to(torch.device("meta"), 6)
    assert [len(c) for c in moved.chunks] == [4, 2] and len(moved) == len(moved.keys) == 6


@contextmanager
def small_disk() -> Iterator[None]:
    """Lasts as briefly as possible, since the test runner may write its own output to a file too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    data = io.BytesIO()
    picture(0, 8, 8).save(data, "PNG")
    root = tmp_path / "set/test/a"
    root.mkdir(parents=True)
    for i in range(20):
        (root / f"{i}.png").write_bytes(data.getvalue())
    with small_disk(), pytest.raises(ValueError, match="no space left.*LINES_SWEEP_CACHE"):
        prepare(FolderSource(tmp_path / "set"), PLAIN)
    assert not [p for p in (cache_root() / "images").iterdir() if p.suffix != ".lock"]


def _without(name: str) -> Callable[[Path], object]:
    return lambda place: (place / name).unlink()


def _flip_of_a_label(place: Path) -> None:
    """The labels follow the pixels: 0 and 1 as int64."""
    column = pa.ipc.open_file(pa.memory_map(str(place / "val.arrow"))).get_batch(0).column("label")
    labels = column.buffers()[1].to_pybytes()[: 8 * len(column)]
    flip(place / "val.arrow", (place / "val.arrow").read_bytes().index(labels))


DAMAGE = {
    "a label": _flip_of_a_label,
    "a pixel": lambda place: flip(place / "val.arrow", 2000, bit=6),
    "the fingerprint": lambda place: flip(place / "val.json", -4),
    "no val": _without("val.arrow"),
    "no manifest of val": _without("val.json"),
    "an empty val": lambda place: (place / "val.arrow").write_bytes(b""),
    "nothing": lambda place: [path.unlink() for path in place.iterdir()],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_pack_gives_the_images_and_labels_of_the_undamaged_one(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = FolderSource(folder(tmp_path / "set", [f"{c}/{i}.png" for c in "ab" for i in range(30)]), val_fraction=0.3)
    before = {split: (s.slice(0, len(s)).clone(), s.labels_N, s) for split, s in prepare(source, PLAIN).items()}
    DAMAGE[kind](prepared_folder(source, PLAIN))
    again = prepare(source, PLAIN)
    assert again.keys() == before.keys() == {"val", "test"}
    for split, (pixels, labels, images) in before.items():
        assert torch.equal(again[split].slice(0, len(images)), pixels), split
        assert torch.equal(again[split].labels_N, labels), split
        assert (again[split].keys, again[split].fingerprint) == (images.keys, images.fingerprint)
    assert "it is made again" in caplog.text
