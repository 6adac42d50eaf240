"""Proves that training images are the train split without scored images, and are decoded only if needed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.embedded import pack_path
from tasks.files.cache import cache_root, digest
from tasks.vision import decoded as data
from tasks.vision.decoded import prepare, prepare_train
from tasks.vision.folders import FolderSource
from tasks.vision.images import ImageRecord, TrainingSource
from tasks.vision.packs import PackSource
from tasks.vision.preprocess import Preprocess

PLAIN = Preprocess((16, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "squash")


def folder(root: Path, splits: tuple[str, ...], per_class: int = 10) -> Path:
    """Write distinct images of two classes for each of `splits`."""
    for s, split in enumerate(splits):
        for c, name in enumerate("ab"):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(per_class):
                pixels = np.random.default_rng([s, c, i]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("splits", "scored_of_train"),
    [(("train", "val", "test"), 0), (("train", "test"), "cut"), (("train", "val"), 0)],
)
def test_train_is_the_folder_less_what_is_cut_for_val(
    tmp_path: Path, splits: tuple[str, ...], scored_of_train: object
) -> None:
    source = FolderSource(folder(tmp_path / "set", splits), val_fraction=0.4)
    train = {r.name for r in source.train_records()}
    scored = {r.name for records in source.records().values() for r in records}
    of_train = {str(p) for p in (tmp_path / "set" / "train").rglob("*.png")}
    assert not train & scored and train | (scored & of_train) == of_train
    assert bool(scored & of_train) == (scored_of_train == "cut")
    assert len(prepare_train(source, PLAIN)) == len(train)


@pytest.mark.parametrize("splits", [("val", "test"), ("test",), ("",)])
def test_without_a_train_folder_there_is_nothing_to_train_on(tmp_path: Path, splits: tuple[str, ...]) -> None:
    source = FolderSource(folder(tmp_path / "set", splits))
    with pytest.raises(ValueError, match=r"set: holds no training images: .*train/CLASS/"):
        prepare_train(source, PLAIN)


def test_copies_of_scored_images_are_left_out_of_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path / "set", ("train", "val", "test"))
    (root / "train" / "a" / "copy.png").write_bytes((root / "test" / "a" / "3.png").read_bytes())
    (root / "train" / "b" / "other.png").write_bytes((root / "val" / "a" / "4.png").read_bytes())
    train = prepare_train(FolderSource(root), PLAIN)
    assert len(train) == 20
    assert "left 2 images out of train" in caplog.text
    scored = prepare(FolderSource(root), PLAIN)
    assert not set(train.keys) & {*scored["val"].keys, *scored["test"].keys}


def test_labels_and_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    source = FolderSource(folder(tmp_path / "set", ("train", "test")))
    train = prepare_train(source, PLAIN)
    by_key = {r.digest.hex(): r for r in source.train_records()}
    for i, key in enumerate(train.keys):
        assert train.labels_N[i] == by_key[key].label
        with Image.open(by_key[key].name) as image:
            assert np.array_equal(train.slice(i, i + 1)[0].permute(1, 2, 0).numpy(), np.asarray(image))


def test_evaluation_decodes_no_training_image_and_its_cache_keeps_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    whole = data.decode_image

    def noted(record: ImageRecord, resize: object) -> object:
        decoded.append(record.name)
        return whole(record, resize)  # type: ignore[arg-type]

    monkeypatch.setattr(data, "decode_image", noted)
    source = FolderSource(folder(tmp_path / "set", ("train", "val", "test")))
    prepare(source, PLAIN)
    assert len(decoded) == 40 and not [name for name in decoded if "/train/" in name]
    key = digest(["1", source.fingerprint, PLAIN.resize_key])
    assert sorted(p.name for p in (cache_root() / "images" / key).glob("*.arrow")) == ["test.arrow", "val.arrow"]
    decoded.clear()
    prepare_train(source, PLAIN)
    assert len(decoded) == 20 and all("/train/" in name for name in decoded)
    decoded.clear()
    prepare_train(source, PLAIN)
    prepare(source, PLAIN)
    assert decoded == []


def test_a_pack_gives_its_train_split_and_a_shifted_one_none() -> None:
    source = PackSource(pack_path("emoji"))
    assert isinstance(source, TrainingSource)
    scored = {r.name for records in source.records().values() for r in records}
    train = {r.name for r in source.train_records()}
    assert len(train) > 1000 and not train & scored
    assert list(PackSource(pack_path("emoji_mono")).train_records()) == []


def test_a_users_source_without_training_images_is_an_error_with_a_remedy() -> None:
    class Mine:
        name, class_names, templates, fingerprint = "mine", ("a", "b"), ("a {}",), "1"

        def records(self) -> dict[str, list[ImageRecord]]:
            return {"test": [ImageRecord.from_array("0", 0, np.zeros((16, 16, 3), dtype=np.uint8))]}

    with pytest.raises(ValueError, match=r"mine: holds no training images.*train_records\(\)"):
        prepare_train(Mine(), PLAIN)
