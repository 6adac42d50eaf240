"""Models named by a URL, fetched once: `s3://bucket/model.safetensors`, or a folder with one model."""

import posixpath
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.files.cache import cache_root, cached, digest
from tasks.files.json_files import parse_json
from tasks.files.object_store import StoreFolder, is_url

#: File names of a folder's weights, the safest and most common first; an index lists the shards of one model.
WEIGHTS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
INDEX_SUFFIX = ".index.json"
#: Bytes of a file's name, at most, on all usual file systems.
_LONGEST = 255
#: Files that peft writes: low-rank factors of a task vector, without the model.
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar")
#: Fetched with a single file of weights: they name the activation that it needs.
COMPANIONS = ("config.json", "open_clip_config.json")
#: The other files of a model's folder: configuration, tokenizer, and the records of its training.
_BESIDE = (".json", ".jsonl", ".txt", ".model", ".jinja", ".yaml", ".csv", ".parquet")

#: Called with a file's name, the bytes fetched so far, and the bytes in all.
Report = Callable[[str, int, int], None]
_Entries = Mapping[str, Mapping[str, Any]]

#: Models that this process has fetched: a model does not change under a run.
fetched: dict[tuple[str, Path], Path] = {}


def nearby(source: str, report: Report = lambda name, done, total: None) -> str:
    """Return a source that is not a URL as it is, and for a URL the path of its local copy.

    A URL is fetched once for each state of its files.

    Args:
        source: as a user wrote it; a URL names a file of weights, or a folder with one model or adapter.
        report: called with the progress of each file.

    Raises:
        ValueError: if the object does not exist, the store refuses, or no space is left.

    Example:
        >>> nearby("s3://models/vit/expert.safetensors")
        '/home/me/.cache/lines-sweep/fetched/0c1f.../expert.safetensors'
    """
    if not is_url(source):
        return source
    key = source, cache_root()
    if key not in fetched:
        fetched[key] = _fetch(source.rstrip("/"), report)
    return str(fetched[key])


def _fetch(url: str, report: Report) -> Path:
    parent, _, name = url.rpartition("/")
    one = name.endswith((*WEIGHT_SUFFIXES, INDEX_SUFFIX))
    place = StoreFolder.open(parent if one else url)
    found = _of_file(place, name) if one else _of_folder(place)
    marks = {n: _mark(info) for n, info in sorted(found.items())}
    folder = cached(
        cache_root() / "fetched" / digest([url, *(f"{n} {mark}" for n, mark in marks.items())]),
        lambda partial: _download(place, found, partial, report),
    )
    return folder / name if one else folder


def _of_file(place: StoreFolder, name: str) -> _Entries:
    if (info := place.info(name)) is None:
        raise ValueError(f"{place.url}/{name}: the object does not exist")
    names = (*_shards(place, name), *COMPANIONS)
    return {name: info} | {n: found for n in names if (found := place.info(n)) is not None}


def _of_folder(place: StoreFolder) -> _Entries:
    entries = {name: info for name, info in place.entries().items() if "/" not in name}
    if not entries:
        raise ValueError(f"{place.url}: no folder of a model and no file of weights has this name")
    names = {name for name in entries if name.endswith(_BESIDE)} | set(_weights(place, entries))
    # One request each: a listing may describe an object differently than the object's own information.
    return {name: place.info(name) or {} for name in sorted(names)}


def _weights(place: StoreFolder, names: Iterable[str]) -> Iterable[str]:
    """Return the first of the usual files, with the shards of an index; for an adapter, its factors."""
    for name in (*WEIGHTS, *ADAPTER_WEIGHTS):
        if name in names:
            return _shards(place, name) or [name]
    return []


def _shards(place: StoreFolder, name: str) -> list[str]:
    """Return the files that an index lists; none of another file."""
    index = place.read(name) if name.endswith(INDEX_SUFFIX) else None
    return shards_of(index, f"{place.url}/{name}:") if index else []


def shards_of(index: bytes, subject: str) -> list[str]:
    """Return the files that an index lists, which are in its own folder.

    Args:
        index: its content.
        subject: the first words of errors.

    Raises:
        ValueError: if it is not an index, or names a file elsewhere.
    """
    try:
        shards = set(parse_json(index, subject.rstrip(":"))["weight_map"].values())
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{subject} must hold a weight_map of file names ({error!r})") from error
    for name in shards:
        if not isinstance(name, str) or not _is_name(name):
            raise ValueError(f"{subject} must name files beside it, got {name!r}")
    return sorted(shards)


def _is_name(name: str) -> bool:
    plain = name.isprintable() and "\\" not in name and len(name.encode(errors="replace")) <= _LONGEST
    return plain and name not in ("", ".", "..") and name == posixpath.basename(name)


def _mark(info: Mapping[str, Any]) -> str:
    """Return what changes with an object: the hash that the store keeps, or its size and time."""
    for key in ("ETag", "etag", "md5Hash", "generation"):
        if found := info.get(key):
            return str(found)
    times = (info.get(key) for key in ("mtime", "LastModified", "created"))
    return f"{info.get('size')} {next((t for t in times if t is not None), '')}"


def _download(place: StoreFolder, found: _Entries, folder: Path, report: Report) -> None:
    folder.mkdir()
    for name, info in found.items():
        place.download(name, folder / name, lambda done, total, name=name: report(name, done, total))  # type: ignore[misc]
        after = place.info(name)
        if after is None or _mark(after) != _mark(info):
            raise ValueError(f"{place.url}/{name}: was changed while it was fetched: run the command again")
