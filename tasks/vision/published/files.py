"""Locations of a published set's files: options of a task, root folders, and layouts."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.vision.published.catalogue import FileLayout, VisionSet
from tasks.vision.published.formats.formats import FORMATS
from tasks.vision.published.formats.listing import FilesMissing, Format
from tasks.vision.published.formats.parquet import parquet_format

VISION_OPTIONS = ("root", "from", "repo", "val_index", "check_counts", "classes_by")
_ORIGINS = ("torchvision", "huggingface", "webdataset", "folder")
_MIRRORS = ("huggingface", "webdataset")
_SPLITS = ("train", "val", "test")
#: Set in a job of `lines submit`, on whose nodes the working directory holds the files that the spec names.
JOB = "LINES_SWEEP_JOB"
#: Part of the error about a missing set that can be fetched.
FETCHED = "`lines prepare` fetches it"


@dataclass(frozen=True, slots=True)
class VisionOptions:
    """Options of a published set in the spec.

    Attributes:
        root: the folder of the files; by default $LINES_SWEEP_DATA, or for a mirror a subfolder of it.
        origin: torchvision (the authors' and torchvision's layouts), huggingface, webdataset, or folder.
        repo: another mirror on the hub.
        val_index: for ImageNet, imagenet_98_idxs.npy of model-soups.
        check_counts: whether to refuse counts other than the published ones.
        by_order: whether to match a mirror's classes by order in place of name.
    """

    root: Path | None = None
    origin: str = "torchvision"
    repo: str | None = None
    val_index: Path | None = None
    check_counts: bool = True
    by_order: bool = False


def vision_options(where: str, values: Mapping[str, Any]) -> VisionOptions:
    """Check the options of a task.

    Raises:
        ValueError: if a value is invalid.
    """
    origin, by = values.get("from", "torchvision"), values.get("classes_by", "name")
    if origin not in _ORIGINS:
        raise ValueError(f"{where}.from: must be one of {', '.join(_ORIGINS)}, got {origin!r}")
    if by not in ("name", "order"):
        raise ValueError(f"{where}.classes_by: must be name or order, got {by!r}")
    if not isinstance(check := values.get("check_counts", True), bool):
        raise ValueError(f"{where}.check_counts: must be true or false, got {check!r}")
    if (repo := values.get("repo")) is not None and not _is_repo(repo):
        raise ValueError(f"{where}.repo: must be OWNER/NAME of the hub, got {repo!r}")
    if repo is not None and origin not in _MIRRORS:
        raise ValueError(
            f"{where}.repo: names a mirror, so `from` must be one of {', '.join(_MIRRORS)}, got {origin!r}"
        )
    root, index = (_absolute(where, name, values.get(name)) for name in ("root", "val_index"))
    if origin == "folder" and root is None:
        raise ValueError(f"{where}.root: is required with from: folder: the folder that holds train and test")
    return VisionOptions(root, origin, repo, index, check, by == "order")


def _is_repo(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", value) is not None


def _absolute(where: str, name: str, value: object) -> Path | None:
    if value is None:
        return None
    if isinstance(value, str):
        path = Path(value).expanduser()
        # A job's spec keeps relative paths, since the journal holds them and the next job has another directory.
        if path.is_absolute() or (os.environ.get(JOB) and path.exists()):
            return path.absolute()
    raise ValueError(f"{where}.{name}: must be an absolute path, because workers read it too, got {value!r}")


def data_root() -> Path:
    """Return `$LINES_SWEEP_DATA`, or else ~/.cache/lines-sweep/data."""
    return Path(os.environ.get("LINES_SWEEP_DATA") or "~/.cache/lines-sweep/data").expanduser()


def root_of(entry: VisionSet, options: VisionOptions) -> Path:
    """Return the folder that holds the files of a set, or into which they are fetched."""
    if options.root is not None:
        return options.root
    if options.origin == "torchvision":
        return data_root()
    # A folder for each mirror, so that files of one are not taken for another's.
    return data_root() / options.origin / (options.repo.replace("/", "--") if options.repo else entry.name)


def find_files(entry: VisionSet, options: VisionOptions) -> tuple[FileLayout, Format, Path]:
    """Return the first layout that exists, its format and its folder.

    Raises:
        FilesMissing: if there is none; the message explains how to get the files.
    """
    root = root_of(entry, options)
    for layout in _layouts(entry, options, root):
        if (place := root / layout.place).is_dir():
            return layout, _format(entry, layout), place
    looked = " or ".join(dict.fromkeys(str(root / layout.place) for layout in _layouts(entry, options, root)))
    fetch = f"{FETCHED}; or " if options.origin != "folder" and can_fetch(entry, options) else ""
    raise FilesMissing(f"vision/{entry.name}: no folder {looked}: {fetch}{by_hand(entry, options)}")


def files_there(entry: VisionSet, root: Path) -> list[Path]:
    """Return the existing folders of torchvision's and the authors' layouts below `root`, whole or not."""
    return [root / layout.place for layout in entry.layouts if (root / layout.place).is_dir()]


def by_hand(entry: VisionSet, options: VisionOptions) -> str:
    """Return the instructions for getting the files of a set by hand."""
    kinds = {"huggingface": "Parquet files of a mirror on the hub", "webdataset": "shards of CLIP_benchmark"}
    if options.origin in kinds:
        return f"put {kinds[options.origin]} into {root_of(entry, options)}, or name one for `lines prepare` by repo"
    return f"{entry.by_hand} (ROOT is {root_of(entry, options)})"


def _format(entry: VisionSet, layout: FileLayout) -> Format:
    if layout.format == "parquet":
        return parquet_format(entry.huggingface.get("folder", ""), entry.huggingface.get("label", "label"))
    return FORMATS[layout.format]


def _layouts(entry: VisionSet, options: VisionOptions, root: Path) -> list[FileLayout]:
    if options.origin == "torchvision":
        return [_present(layout, root) for layout in entry.layouts]
    if options.origin == "huggingface":
        splits = entry.huggingface.get("splits", {"train": "train", "test": "test"})
        return [FileLayout("parquet", ".", splits)]
    formats = {"webdataset": "webdataset", "folder": "folders"}
    return [_present(FileLayout(formats[options.origin], ".", {s: s for s in _SPLITS}), root)]


def _present(layout: FileLayout, root: Path) -> FileLayout:
    """Drop train and val if their folders are missing: a user may have ImageNet's validation images only."""
    if layout.format not in ("folders", "webdataset"):
        return layout
    present = {s: own for s, own in layout.splits.items() if s == "test" or (root / layout.place / own).is_dir()}
    return FileLayout(layout.format, layout.place, present)


def can_fetch(entry: VisionSet, options: VisionOptions) -> bool:
    """Return whether the files of a set can be downloaded from a known source."""
    if options.origin == "torchvision":
        return bool(entry.download)
    return options.repo is not None or (options.origin == "huggingface" and bool(entry.huggingface))
