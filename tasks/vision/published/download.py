"""Download of a published set's files, by torchvision (with checksums) or from the Hugging Face hub."""

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from tasks.files.cache import cache_root, digest
from tasks.files.hub import hub_silence
from tasks.files.locks import locked
from tasks.vision.libraries import torchvision
from tasks.vision.published.catalogue import VisionSet
from tasks.vision.published.files import VisionOptions, by_hand, can_fetch, files_there, root_of

_PATTERNS = {"huggingface": ["*.parquet"], "webdataset": ["*.tar", "*.txt"]}
_ARCHIVES = (".gz", ".tar", ".tgz", ".zip")


def fetch(entry: VisionSet, options: VisionOptions) -> None:
    """Download the files of a set into its root; wait if another process fetches the same set.

    Raises:
        ValueError: if no source is known, or the download fails; the message explains how to get the files by hand.
    """
    if not can_fetch(entry, options):
        raise ValueError(f"vision/{entry.name}: cannot be downloaded from here; {by_hand(entry, options)}")
    root = root_of(entry, options)
    try:
        with _lock(entry, root):
            if options.origin == "torchvision":
                _from_torchvision(entry, root)
            else:
                _from_hub(entry, options, root)
    # urllib, torchvision and the hub raise these: no connection, missing package, wrong checksum, unknown repository.
    except (OSError, RuntimeError, HfHubHTTPError) as error:
        how = f"to get it by hand: {by_hand(entry, options)}"
        raise ValueError(f"vision/{entry.name}: the download failed ({_brief(error)}); {how}") from error


@contextmanager
def _lock(entry: VisionSet, root: Path) -> Iterator[None]:
    locks = cache_root() / "fetching"
    locks.mkdir(parents=True, exist_ok=True)
    with locked(locks / f"{digest([entry.name, str(root.resolve())])}.lock"):
        yield


def _from_hub(entry: VisionSet, options: VisionOptions, root: Path) -> None:
    """Fetch from the hub; its client keeps whole files and resumes with the others."""
    if silence := hub_silence():
        raise ConnectionError(silence)
    patterns = _PATTERNS[options.origin]
    if options.origin == "huggingface" and not options.repo and (folder := entry.huggingface.get("folder")):
        patterns = [f"{folder}/{pattern}" for pattern in patterns]
    repo = options.repo or entry.huggingface["repo"]
    snapshot_download(repo, repo_type="dataset", local_dir=root, allow_patterns=patterns)


def _from_torchvision(entry: VisionSet, root: Path) -> None:
    """Download and unpack into a scratch folder, then move the whole set into place.

    torchvision takes any existing folder for a whole set, so a killed process must not leave a part of one.
    """
    if files_there(entry, root):
        return
    scratch = root / f".fetching-{entry.name}"
    _keep_archives(scratch)
    for step in _steps(entry, scratch):
        step()
    place = files_there(entry, scratch)[0].relative_to(scratch)
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (scratch / place).rename(root / place)
    shutil.rmtree(scratch)


def _keep_archives(scratch: Path) -> None:
    """Delete all but the archives that a killed process left; checksums show whether they are whole."""
    scratch.mkdir(parents=True, exist_ok=True)
    for top, _, names in os.walk(scratch, topdown=False):
        for name in names:
            if not name.endswith(_ARCHIVES):
                Path(top, name).unlink()
        if Path(top) != scratch and not os.listdir(top):
            Path(top).rmdir()


def _steps(entry: VisionSet, root: Path) -> list[Callable[[], Any]]:
    what = entry.download
    data_set = getattr(torchvision.datasets, what["class"])
    if issubclass(data_set, torchvision.datasets.CIFAR10):
        # torchvision's class would unpickle the batches without restrictions.
        fetch_archive = torchvision.datasets.utils.download_and_extract_archive
        archive = functools.partial(fetch_archive, data_set.url, str(root), filename=data_set.filename)
        return [functools.partial(archive, md5=data_set.tgz_md5)]
    make = functools.partial(data_set, root / what.get("folder", ""), download=True, **what.get("arguments", {}))
    return [functools.partial(make, split=split) for split in what["splits"]] if "splits" in what else [make]


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
