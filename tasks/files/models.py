"""Models that a URL names, brought to this machine once: `s3://bucket/model.safetensors`, or a folder of one."""

import json
import posixpath
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.files.cache import cache_root, cached, digest
from tasks.files.object_store import StoreFolder, is_url

#: A folder's weights, the safest and most common first; an index lists the shards of one model.
WEIGHTS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
#: What peft writes: low-rank factors of a task vector, without the model.
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
#: Beside one file of weights: they say which activation it needs.
COMPANIONS = ("config.json", "open_clip_config.json")
#: What else a model's folder holds: configuration and tokenizer, and what its training left.
_BESIDE = (".json", ".jsonl", ".txt", ".model", ".jinja", ".yaml", ".csv", ".parquet")

#: Told a name, how many bytes have come, and of how many.
Report = Callable[[str, int, int], None]
_Entries = Mapping[str, Mapping[str, Any]]

#: What this process has fetched: a model does not change under a run.
_known: dict[tuple[str, Path], Path] = {}


def nearby(source: str, report: Report = lambda name, done, total: None) -> str:
    """A source as it is; of a URL the place of its copy here, which is fetched once for each state of its files.

    Args:
        source: what a user wrote; a URL names a file of weights, or a folder of one model or adapter.
        report: told of what is being fetched.

    Raises:
        ValueError: there is no such object, the store refuses, or no space is left.
    """
    if not is_url(source):
        return source
    key = source, cache_root()
    if key not in _known:
        _known[key] = _fetched(source.rstrip("/"), report)
    return str(_known[key])


def _fetched(url: str, report: Report) -> Path:
    parent, _, name = url.rpartition("/")
    one = name.endswith(WEIGHT_SUFFIXES)
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
        raise ValueError(f"{place.url}/{name}: there is no such object")
    beside = {n: found for n in COMPANIONS if (found := place.info(n)) is not None}
    return {name: info, **beside}


def _of_folder(place: StoreFolder) -> _Entries:
    entries = {name: info for name, info in place.entries().items() if "/" not in name}
    if not entries:
        raise ValueError(f"{place.url}: there is no such folder of a model, nor a file of weights of that name")
    wanted = {name for name in entries if name.endswith(_BESIDE)} | set(_weights(place, entries))
    # Asked one by one: what a listing says of an object need not be what the store says of it alone.
    return {name: place.info(name) or {} for name in sorted(wanted)}


def _weights(place: StoreFolder, names: Iterable[str]) -> Iterable[str]:
    """The first of the usual files, with its shards; of an adapter, its factors."""
    for name in (*WEIGHTS, *ADAPTER_WEIGHTS):
        if name in names:
            index = place.read(name) if name.endswith(".index.json") else None
            return shards_of(index, f"{place.url}/{name}:") if index else [name]
    return []


def shards_of(index: bytes, who: str) -> list[str]:
    """The files that an index lists, each beside it.

    Args:
        index: its content.
        who: is the subject of errors.

    Raises:
        ValueError: it is no index, or names a file elsewhere.
    """
    try:
        shards = sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{who} must hold a weight_map of file names ({error!r})") from error
    for name in shards:
        if not isinstance(name, str) or name in ("", ".", "..") or name != posixpath.basename(name) or "\\" in name:
            raise ValueError(f"{who} must name files beside it, got {name!r}")
    return shards


def _mark(info: Mapping[str, Any]) -> str:
    """What changes when an object does: its hash, as the store has it, or its size and time."""
    for key in ("ETag", "etag", "md5Hash", "generation"):
        if found := info.get(key):
            return str(found)
    times = (info.get(key) for key in ("mtime", "LastModified", "created"))
    return f"{info.get('size')} {next((t for t in times if t is not None), '')}"


def _download(place: StoreFolder, found: _Entries, folder: Path, report: Report) -> None:
    folder.mkdir()
    for name, info in found.items():
        place.download(name, folder / name, lambda done, total, name=name: report(name, done, total))  # type: ignore[misc]
        now = place.info(name)
        if now is None or _mark(now) != _mark(info):
            raise ValueError(f"{place.url}/{name}: was changed while it was fetched: run the command again")
