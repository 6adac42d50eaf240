"""Where a checkpoint is: from what a user writes to files on this machine."""

import difflib
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from tasks.files.cache import cache_root
from tasks.files.hub import hub_silence, out_of_reach
from tasks.files.models import ADAPTER_WEIGHTS, COMPANIONS, WEIGHT_SUFFIXES, WEIGHTS, nearby, shards_of
from tasks.files.object_store import is_url
from tasks.registry import near

_EMBEDDED = "embedded/"
_HUB = "hf:"
_ADAPTER = "adapter_config.json"
_ADAPTER_HELP = (
    "a LoRA adapter, not a whole model: `experts` of a spec take it as it is; elsewhere load it with peft, call "
    "merge_and_unload() and save_pretrained(FOLDER), and give that folder"
)


def locate(source: str) -> list[Path]:
    """The file, or the shards, of one checkpoint.

    Args:
        source: a file; a folder with the weights under one of their usual names; `hf:OWNER/REPO[/FILE][@REVISION]`,
            a repository of the Hugging Face hub; a URL of a file or folder, such as s3://bucket/model.safetensors;
            `embedded/NAME`, shipped here (`./embedded/NAME` is a path).

    Raises:
        ValueError: there is no such checkpoint; near names are given.
    """
    if source.startswith(_HUB):
        return _from_hub(source)
    if is_url(source):
        with _named(source, nearby(source)) as here:
            return locate(here)
    if source.startswith(_EMBEDDED):
        folder = Path(str(files("tasks"))) / "embedded" / "checkpoints"
        name = source.removeprefix(_EMBEDDED)
        if not (path := folder / f"{name}.safetensors").is_file():
            if (built := cache_root() / "language" / name).is_dir():
                return locate(str(built))
            raise ValueError(f"{source}: not embedded; {near(name, [p.stem for p in folder.glob('*.safetensors')])}")
        return [path]
    path = Path(source).expanduser()
    if not path.is_dir():
        if not path.is_file() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) and not path.parent.is_dir():
            raise ValueError(f"{source}: no such file, nor its folder; a repository of the hub is written hf:{source}")
        return [_existing(path)]
    for name in WEIGHTS:
        if (path / name).is_file():
            return _with_shards(path / name, source, lambda shard: _existing(path / shard))
    if (path / _ADAPTER).is_file():
        raise ValueError(f"{source}: {_ADAPTER_HELP}")
    others = sorted(p.name for p in path.iterdir() if p.suffix in WEIGHT_SUFFIXES)
    hint = f"; or name one of its files, such as {', '.join(others[:3])}" if others else ""
    raise ValueError(f"{source}: a folder without weights; expected one of {', '.join(WEIGHTS)}{hint}")


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """A LoRA adapter as peft saves it: adapter_config.json, and the factors."""

    config: Path
    weights: Path


def locate_adapter(source: str) -> AdapterFiles | None:
    """The files of a LoRA adapter; None where `source` is anything else, or also holds a whole model.

    Args:
        source: a folder, or its URL, or `hf:OWNER/REPO[@REVISION]`.

    Raises:
        ValueError: there is a configuration without factors, or the hub refuses.
    """
    if source.startswith(_HUB):
        repo = _HubName.parse(source)
        if repo.file:
            return None
        with _refusals(source):
            return _adapter(source, repo.fetch)
    folder = Path(nearby(source)).expanduser()
    return _adapter(source, lambda name: folder / name) if folder.is_dir() else None


@contextmanager
def _named(url: str, here: str) -> Iterator[str]:
    """Errors about the copy of a URL's files name the URL."""
    try:
        yield here
    except ValueError as error:
        raise ValueError(str(error).replace(here, url)) from error


def _adapter(source: str, fetch: Callable[[str], Path]) -> AdapterFiles | None:
    if not _found(_ADAPTER, fetch) or any(_found(name, fetch) for name in WEIGHTS):
        return None
    for name in ADAPTER_WEIGHTS:
        if _found(name, fetch):
            return AdapterFiles(fetch(_ADAPTER), fetch(name))
    raise ValueError(f"{source}: has {_ADAPTER}, but none of {', '.join(ADAPTER_WEIGHTS)} beside it")


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such file, nor its folder")
    # Near names alone, as the folder may be a home; suffixes alike make all names nearer than they are.
    others = sorted(p.name for p in path.parent.iterdir() if p.suffix in WEIGHT_SUFFIXES)
    close = difflib.get_close_matches(path.name, others, cutoff=0.8)
    raise ValueError(f"{path}: no such file" + (f"; did you mean {' or '.join(map(repr, close))}?" if close else ""))


def _with_shards(path: Path, source: str, fetch: Callable[[str], Path]) -> list[Path]:
    """The file itself, or the shards that an index lists."""
    if not path.name.endswith(".index.json"):
        return [path]
    return [fetch(shard) for shard in shards_of(path.read_bytes(), f"{source}: {path.name}")]


@dataclass(frozen=True, slots=True)
class _HubName:
    """A repository of the hub, or one file of it."""

    repo: str
    file: str | None
    revision: str | None

    @classmethod
    def parse(cls, source: str) -> "_HubName":
        match = re.fullmatch(r"hf:(?P<repo>[^/@]+/[^/@]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?", source)
        if match is None:
            raise ValueError(f"{source}: must be hf:OWNER/REPO[/FILE][@REVISION]")
        return cls(**match.groupdict())

    def fetch(self, name: str) -> Path:
        silent = hub_silence() is not None
        return Path(hf_hub_download(self.repo, name, revision=self.revision, local_files_only=silent))


@contextmanager
def _refusals(source: str) -> Iterator[None]:
    try:
        yield
    except EntryNotFoundError:
        raise
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{source}: the hub refuses it: {str(error).strip()}") from error


def _from_hub(source: str) -> list[Path]:
    hub, offline = _HubName.parse(source), False
    with _refusals(source):
        for name in [hub.file] if hub.file else WEIGHTS:
            try:
                files = _with_shards(hub.fetch(name), source, hub.fetch)
                for companion in COMPANIONS:
                    _found(posixpath.join(posixpath.dirname(name), companion), hub.fetch)
                return files
            except EntryNotFoundError as error:
                # Also where the hub is out of reach and this name is not in the cache, though another may be.
                offline |= isinstance(error, LocalEntryNotFoundError)
        if not hub.file and _found(_ADAPTER, hub.fetch):
            raise ValueError(f"{source}: {_ADAPTER_HELP}")
    names = hub.file or ", ".join(WEIGHTS)
    if offline:
        raise ValueError(f"{source}: found none of {names} in the local cache, and {out_of_reach()}")
    raise ValueError(f"{source}: found none of {names} in the repository")


def _found(name: str, fetch: Callable[[str], Path]) -> bool:
    """Fetch a file that not every repository or folder has."""
    try:
        return fetch(name).is_file()
    except EntryNotFoundError:
        return False
