"""Webdataset shards as CLIP_benchmark writes them: SPLIT/N.tar with KEY.{jpg,png,webp} and KEY.cls; classnames.txt."""

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tasks.vision.file_tree import is_hidden
from tasks.vision.published.formats.listing import FileSlice, FilesMissing, Format, Listing

_IMAGES = {"jpg", "jpeg", "png", "webp"}


def _class_names(place: Path, split: str) -> Sequence[str]:
    return [line.strip() for line in (place / "classnames.txt").read_text().splitlines() if line.strip()]


def _read(place: Path, split: str) -> Listing:
    """List the images, which stay in their shards and are read by offset."""
    shards = sorted(
        (p for p in (place / split).glob("*.tar") if not is_hidden(p.name)), key=lambda p: (len(p.name), p.name)
    )
    if not shards:
        raise FilesMissing(f"{place / split}: holds no shards (0.tar, ...)")
    rows = [row for shard in shards for row in _samples(shard)]
    return Listing([image for image, _ in rows], [label for _, label in rows])


def _samples(shard: Path) -> Iterator[tuple[FileSlice, int]]:
    """Yield images and labels in the order of the shard.

    Raises:
        FilesMissing: if the shard is not a plain tar file, or a sample lacks its image or label.
    """
    images: dict[str, FileSlice] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if any(map(is_hidden, PurePosixPath(member.name).parts)):
                    continue
                key, _, suffix = member.name.rpartition(".")
                if suffix.lower() in _IMAGES:
                    images[key] = FileSlice(shard, member.offset_data, member.size)
                elif suffix == "cls" and (file := tar.extractfile(member)) is not None:
                    labels[key] = int(file.read())
    except (tarfile.TarError, ValueError) as error:
        raise FilesMissing(f"{shard}: cannot be read as a shard: {error}") from error
    if odd := sorted(set(images) ^ set(labels)):
        lacks = "its label (.cls)" if odd[0] in images else f"its image ({', '.join(sorted(_IMAGES))})"
        raise FilesMissing(f"{shard}: sample {odd[0]!r} lacks {lacks}: is the shard whole?")
    return ((image, labels[key]) for key, image in images.items())


FORMAT = Format(_read, _class_names)
