"""Proves that folders are read as they are meant: links, hidden and system files, Unicode forms of class names."""

import logging
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.vision.folders import FolderSource

COMPOSED, APART = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
#: What macOS writes next to a file on other file systems.
APPLE_DOUBLE = bytes.fromhex("00051607000200004d6163204f532058") + bytes(200)


def images(folder: Path, count: int = 4, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng([seed, i]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("blue", "green", "red")):
        images(tmp_path / "set" / "test" / name, seed=seed)
    return tmp_path / "set"


def found(root: Path) -> dict[str, list[str]]:
    """Return class -> paths of its images below the root."""
    source = FolderSource(root)
    classes: dict[str, list[str]] = {name: [] for name in source.class_names}
    for record in source.records()["test"]:
        classes[source.class_names[record.label]].append(os.path.relpath(record.name, root))
    return {name: sorted(paths) for name, paths in classes.items()}


def test_hidden_and_system_files_are_skipped_at_every_depth(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    before, key = found(root), FolderSource(root).fingerprint
    for top in (root, root / "test", root / "test" / "red", images(root / "test" / "red" / "more", 1, seed=9)):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
            (top / name).write_bytes(APPLE_DOUBLE)
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir/0.png", "$RECYCLE.BIN", "lost+found"):
            images(top / name, 1)
        (top / ".#lock").symlink_to("user@host.1")
    shutil.move(root / "test" / "red" / "more" / "0.png", root / "test" / "red" / "9.png")
    assert found(root) == {**before, "red": [*before["red"], "test/red/9.png"]}
    (root / "test" / "red" / "9.png").unlink()
    assert FolderSource(root).fingerprint == key and not caplog.records


def test_links_are_followed(root: Path, tmp_path: Path) -> None:
    before = found(root)
    store = tmp_path / "store"
    shutil.move(root / "test" / "red", store / "red")
    (root / "test" / "red").symlink_to(store / "red")  # a class
    (store / "green").mkdir()
    for name in ("0.png", "1.png"):
        shutil.move(root / "test" / "green" / name, store / "green" / name)
    (root / "test" / "green" / "more").symlink_to(store / "green")  # a folder in a class
    shutil.move(root / "test" / "blue" / "3.png", store / "3.png")
    (root / "test" / "blue" / "3.png").symlink_to(store / "3.png")  # a file
    after = found(root)
    assert after["red"] == before["red"] and after["blue"] == before["blue"]
    assert after["green"] == ["test/green/2.png", "test/green/3.png", "test/green/more/0.png", "test/green/more/1.png"]


def test_circles_of_links_end(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = found(root)
    red = root / "test" / "red"
    (red / "self").symlink_to(red)
    (red / "up").symlink_to(root)
    (red / "higher").symlink_to(root.parent)
    assert found(root) == before
    assert "this link leads to a folder that it is in" in caplog.text
    (red / "other").symlink_to(root / "test" / "green")
    (root / "test" / "green" / "back").symlink_to(red)
    assert [len(paths) for paths in found(root).values()] == [4, 8, 8]


def test_links_that_lead_nowhere_are_refused_with_their_count(root: Path) -> None:
    (root / "test" / "yellow").symlink_to("/no/mount/yellow")
    (root / "test" / "red" / "circle").symlink_to("circle")
    for i in range(6):
        (root / "test" / "blue" / f"dead{i}.png").symlink_to(f"/no/mount/{i}.png")
    with pytest.raises(ValueError, match=r"8 links lead nowhere \(.*dead0\.png, .* and 3 more\): mount or"):
        FolderSource(root)


def test_a_set_of_dead_links_alone_is_no_empty_set(tmp_path: Path) -> None:
    for name in ("red", "green"):
        (tmp_path / name).symlink_to(f"/no/mount/{name}")
    with pytest.raises(ValueError, match=r"2 links lead nowhere \(.*green, .*red\)"):
        FolderSource(tmp_path)
    images(tmp_path / "whole" / "train" / "red")
    (tmp_path / "whole" / "test").symlink_to("/no/mount/test")
    with pytest.raises(ValueError, match=r"1 links lead nowhere \(.*test\)"):
        FolderSource(tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_an_error(root: Path) -> None:
    (root / "test" / "red").chmod(0)
    with pytest.raises(ValueError, match=r"test/red: this folder cannot be read \(Permission denied\): mount its disk"):
        FolderSource(root)
    (root / "test" / "red").chmod(0o755)


def test_an_empty_class_stays_in_the_prompts(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "test" / "pink").mkdir()
    with caplog.at_level(logging.WARNING):
        assert FolderSource(root).class_names == ["blue", "green", "pink", "red"]
    assert "1 of 4 classes have no images in test, and stay in the prompts: pink" in caplog.text


@pytest.mark.parametrize("layout", ["val and test", "one folder"])
def test_folders_that_differ_in_unicode_form_only_are_one_class(tmp_path: Path, layout: str) -> None:
    parts = ("val", "test") if layout == "val and test" else (".", ".")
    for seed, (part, name) in enumerate(zip(parts, (COMPOSED, APART), strict=True)):
        images(tmp_path / part / name, seed=seed)
        images(tmp_path / part / "tea", seed=seed + 5)
    source = FolderSource(tmp_path, val_fraction=0.5)
    assert source.class_names == [COMPOSED, "tea"]
    records = [r for split in source.records().values() for r in split]
    of_cafe = [Path(r.name).parent.name for r in records if r.label == 0]
    assert sorted(of_cafe) == sorted([COMPOSED] * 4 + [APART] * 4)


def test_class_names_are_found_in_either_unicode_form(tmp_path: Path) -> None:
    images(tmp_path / APART)
    images(tmp_path / "tea")
    assert FolderSource(tmp_path).class_names == [APART, "tea"]
    assert FolderSource(tmp_path, class_names={COMPOSED: "coffee"}).class_names == ["coffee", "tea"]
