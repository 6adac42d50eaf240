"""Fetching the files of a published set, by torchvision (with its checksums) or from the Hugging Face hub."""

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torchvision
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from torchvision.datasets.utils import download_and_extract_archive

from tasks.files.cache import cache_root, digest
from tasks.files.hub import hub_silence
from tasks.files.locks import locked
from tasks.vision.published.catalogue import VisionSet
from tasks.vision.published.files import VisionOptions, by_hand, can_fetch, files_there, root_of

_PATTERNS = {"huggingface": ["*.parquet"], "webdataset": ["*.tar", "*.txt"]}
_ARCHIVES = (".gz", ".tar", ".tgz", ".zip")


def fetch(entry: VisionSet, options: VisionOptions) -> None:
    """Download the files of a set into its root; another process that fetches the same set is waited for.

    Raises:
        ValueError: nothing is known that holds it, or the download fails; how to get it by hand is said.
    """
    if not can_fetch(entry, options):
        raise ValueError(f"vision/{entry.name}: cannot be downloaded from here; {by_hand(entry, options)}")
    root = root_of(entry, options)
    try:
        with _alone(entry, root):
            if options.origin == "torchvision":
                _from_torchvision(entry, root)
            else:
                _from_hub(entry, options, root)
    # What urllib, torchvision and the hub raise: no connection, a missing package, a wrong checksum, no such repo.
    except (OSError, RuntimeError, HfHubHTTPError) as error:
        how = f"to get it by hand: {by_hand(entry, options)}"
        raise ValueError(f"vision/{entry.name}: the download failed ({_brief(error)}); {how}") from error


@contextmanager
def _alone(entry: VisionSet, root: Path) -> Iterator[None]:
    locks = cache_root() / "fetching"
    locks.mkdir(parents=True, exist_ok=True)
    with locked(locks / f"{digest([entry.name, str(root.resolve())])}.lock"):
        yield


def _from_hub(entry: VisionSet, options: VisionOptions, root: Path) -> None:
    """The hub's client keeps whole files, and goes on with the others."""
    if silence := hub_silence():
        raise ConnectionError(silence)
    patterns = _PATTERNS[options.origin]
    if options.origin == "huggingface" and not options.repo and (folder := entry.huggingface.get("folder")):
        patterns = [f"{folder}/{pattern}" for pattern in patterns]
    repo = options.repo or entry.huggingface["repo"]
    snapshot_download(repo, repo_type="dataset", local_dir=root, allow_patterns=patterns)


def _from_torchvision(entry: VisionSet, root: Path) -> None:
    """Download and unpack beside the place, and move the whole set there.

    torchvision takes a folder that is there for a whole one, so that one which a killed process left must not be seen.
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
    """Of what a killed process left; their checksums say whether they are whole."""
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
        # Its own class would unpickle the batches with nothing refused.
        archive = functools.partial(download_and_extract_archive, data_set.url, str(root), filename=data_set.filename)
        return [functools.partial(archive, md5=data_set.tgz_md5)]
    make = functools.partial(data_set, root / what.get("folder", ""), download=True, **what.get("arguments", {}))
    return [functools.partial(make, split=split) for split in what["splits"]] if "splits" in what else [make]


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
