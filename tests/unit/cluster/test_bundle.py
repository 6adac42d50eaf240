"""Proves that files arrive as they were sent, once and whole: listing, comparison, stream, unpacking."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cluster.files.bundle import Bundle, FileEntry, Stream, content_digest, make_bundle, same_files, unpack
from tasks.files.cache import cached

MEBI = 2**20


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def pieces(bundle: Bundle, length: int = 5) -> Iterator[bytes]:
    return (Stream(bundle).read(start, length) for start in range(0, bundle.size, length))


def sent(bundle: Bundle, folder: Path, length: int = 5) -> Path:
    unpack(bundle, content_digest(bundle), pieces(bundle, length), folder)
    return folder / bundle.name


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@given(contents=st.lists(st.binary(max_size=30), max_size=6), length=st.integers(1, 40))
def test_any_files_arrive_as_they_were_sent(
    contents: list[bytes], length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for i, content in enumerate(contents):
        write(folder / "set" / f"class {i % 2}" / f"{i}.png", content)
    (folder / "set").mkdir(exist_ok=True)
    arrived = sent(make_bundle(folder / "set", "tree"), folder / "arrived", length)
    assert files(arrived) == files(folder / "set")


def test_a_class_without_images_arrives_too(tmp_path: Path) -> None:
    write(tmp_path / "set" / "cat" / "1.png")
    (tmp_path / "set" / "dog").mkdir()
    assert sorted(p.name for p in sent(make_bundle(tmp_path / "set", "tree"), tmp_path / "arrived").iterdir()) == [
        "cat",
        "dog",
    ]


def test_a_digest_tells_contents_and_names_apart_and_no_places_or_times(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "model" / "m.safetensors", b"12")
    alike = write(tmp_path / "b" / "model" / "m.safetensors", b"12")
    os.utime(alike, ns=(1, 1))
    other = write(tmp_path / "c" / "model" / "m.safetensors", b"13")
    named = write(tmp_path / "d" / "model" / "n.safetensors", b"12")
    digests = [content_digest(make_bundle(path.parent, "model")) for path in (first, alike, other, named)]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_model_folder_is_sent_without_subfolders_and_training_state(tmp_path: Path) -> None:
    for name in (
        "model.safetensors",
        "config.json",
        "optimizer.pt",
        "rng_state_0.pth",
        "checkpoint-5/model.safetensors",
    ):
        write(tmp_path / "model" / name)
    assert set(files(sent(make_bundle(tmp_path / "model", "model"), tmp_path / "arrived"))) == {
        "config.json",
        "model.safetensors",
    }


def test_a_weights_file_is_sent_with_the_configuration_of_its_activation(tmp_path: Path) -> None:
    for name in ("expert.pt", "other.pt", "open_clip_config.json"):
        write(tmp_path / name)
    assert set(files(sent(make_bundle(tmp_path / "expert.pt", "model"), tmp_path / "arrived").parent)) == {
        "expert.pt",
        "open_clip_config.json",
    }


def test_an_architecture_is_sent_with_its_vocabulary_and_timms_tower(tmp_path: Path) -> None:
    for name in ("vit.json", "bpe_500.txt.gz", "trunk/config.json", "trunk/weights.bin"):
        write(tmp_path / name)
    assert set(files(sent(make_bundle(tmp_path / "vit.json", "model"), tmp_path / "arrived").parent)) == {
        "vit.json",
        "bpe_500.txt.gz",
        "trunk/config.json",
    }


def test_the_only_subfolder_that_is_needed_keeps_its_place(tmp_path: Path) -> None:
    write(tmp_path / "data" / "MNIST" / "raw" / "train")
    write(tmp_path / "data" / "cars" / "1.png")
    assert set(files(sent(make_bundle(tmp_path / "data", "tree", "MNIST/raw"), tmp_path / "arrived"))) == {
        "MNIST/raw/train"
    }


def test_links_are_followed_as_in_the_hubs_cache(tmp_path: Path) -> None:
    blob = write(tmp_path / "blobs" / "1", b"weights")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to(blob)
    arrived = sent(make_bundle(tmp_path / "model", "model"), tmp_path / "arrived") / "model.safetensors"
    assert arrived.read_bytes() == b"weights" and not arrived.is_symlink()


def test_a_link_into_the_folder_above_it_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set" / "cat" / "1.png")
    (tmp_path / "set" / "cat" / "again").symlink_to(tmp_path / "set")
    with pytest.raises(ValueError, match="leads back"):
        make_bundle(tmp_path / "set", "tree")


@pytest.mark.parametrize("name", ["../b", "/etc/b", "a/../../b", "..", "../b/"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    bundle = Bundle("a", (FileEntry(name, str(write(tmp_path / "source")), 1),), "", True)
    with pytest.raises(ValueError, match="leads out"):
        unpack(bundle, content_digest(bundle), [b"x"], tmp_path / "arrived")
    assert {p.name for p in tmp_path.iterdir()} <= {"source", "arrived"}


def test_bytes_that_changed_on_their_way_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle(write(tmp_path / "m.pt", b"12345"), "tree")
    digest = content_digest(bundle)
    with pytest.raises(ValueError, match="changed"):
        unpack(bundle, digest, [b"12", b"346"], tmp_path / "changed")
    with pytest.raises(ValueError, match="1 of its bytes are missing"):
        unpack(bundle, digest, [b"12", b"34"], tmp_path / "short")


def test_a_file_that_has_become_shorter_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "m.pt", b"12345")
    bundle = make_bundle(path, "tree")
    path.write_bytes(b"123")
    with pytest.raises(ValueError, match="shorter"):
        content_digest(bundle)


def small(folder: Path, content: bytes = b"content") -> Bundle:
    return make_bundle(write(folder / "set" / "cat" / "1.png", content).parents[1], "tree")


def test_small_files_are_compared_by_content_not_by_time(tmp_path: Path) -> None:
    mine, copy = small(tmp_path / "a"), small(tmp_path / "b")
    assert mine.entries[-1].mtime_ns != copy.entries[-1].mtime_ns and same_files(mine, copy)
    assert not same_files(mine, small(tmp_path / "c", b"kontent"))


def test_one_more_file_makes_a_difference(tmp_path: Path) -> None:
    mine = small(tmp_path / "a")
    write(tmp_path / "a" / "set" / "dog" / "1.png")
    assert not same_files(mine, make_bundle(tmp_path / "a" / "set", "tree"))


def test_large_files_are_the_same_only_with_equal_times_and_equal_ends(tmp_path: Path) -> None:
    first, second = (write(tmp_path / side / "m.pt", bytes(MEBI)) for side in "ab")
    for path in (first, second):
        os.utime(path, ns=(7, 7))
    assert same_files(make_bundle(first, "tree"), make_bundle(second, "tree"))
    os.utime(second, ns=(8, 8))
    assert not same_files(make_bundle(first, "tree"), make_bundle(second, "tree"))
    second.write_bytes(bytes(MEBI - 1) + b"1")
    os.utime(second, ns=(7, 7))
    assert not same_files(make_bundle(first, "tree"), make_bundle(second, "tree"))


def test_an_interrupted_transfer_is_not_taken_for_complete(tmp_path: Path) -> None:
    bundle = make_bundle(write(tmp_path / "m.pt", b"1234567890"), "tree")
    place = tmp_path / "cache" / content_digest(bundle)

    def torn() -> Iterator[bytes]:
        yield b"12345"
        raise ConnectionError("the driver is gone")

    with pytest.raises(ConnectionError):
        cached(place, lambda partial_: unpack(bundle, place.name, torn(), partial_))
    assert not place.exists()
    cached(place, lambda partial_: unpack(bundle, place.name, pieces(bundle), partial_))
    assert files(place) == {"m.pt": b"1234567890"}


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs to mount a small disk")
def test_a_full_disk_is_an_error_with_a_remedy_and_leaves_nothing(tmp_path: Path) -> None:
    bundle = make_bundle(write(tmp_path / "m.pt", bytes(2 * MEBI)), "tree")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]).returncode:
        pytest.skip("mounting is not permitted")
    try:
        with pytest.raises(ValueError, match="no space left.*LINES_SWEEP_CACHE"):
            cached(disk / "d", lambda p: unpack(bundle, content_digest(bundle), pieces(bundle, MEBI), p))
        assert files(disk) == {"d.lock": b""}
    finally:
        subprocess.run(["umount", str(disk)], check=True)
