"""Where a checkpoint is: from what a user writes to files on this machine."""

import json
import posixpath
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from pipeline.merging.parameters import near

_EMBEDDED = "embedded/"
_HUB = "hf:"
#: A folder's weights, the safest and most common first; an index lists the shards of one model.
_WEIGHTS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
#: Beside the weights in a repository: they say which activation the weights need.
_COMPANIONS = ("config.json", "open_clip_config.json")
#: Beside what peft writes: low-rank factors of a task vector, without the model.
_ADAPTER = "adapter_config.json"
_ADAPTER_HELP = (
    "a LoRA adapter, not a whole model: load it with peft, call merge_and_unload() and save_pretrained(FOLDER), "
    "and give that folder"
)


def locate(source: str) -> list[Path]:
    """The file, or the shards, of one checkpoint.

    Args:
        source: a file; a folder with the weights under one of their usual names; `hf:OWNER/REPO[/FILE][@REVISION]`,
            a repository of the Hugging Face hub; `embedded/NAME`, shipped here (`./embedded/NAME` is a path).

    Raises:
        ValueError: there is no such checkpoint; near names are given.
    """
    if source.startswith(_HUB):
        return _from_hub(source)
    if source.startswith(_EMBEDDED):
        folder = Path(str(files("tasks"))) / "embedded" / "checkpoints"
        name = source.removeprefix(_EMBEDDED)
        if not (path := folder / f"{name}.safetensors").is_file():
            raise ValueError(f"{source}: not embedded{near(name, [p.stem for p in folder.glob('*.safetensors')])}")
        return [path]
    path = Path(source).expanduser()
    if not path.is_dir():
        if not path.is_file() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) and not path.parent.is_dir():
            raise ValueError(f"{source}: no such file, nor its folder; a repository of the hub is written hf:{source}")
        return [_existing(path)]
    for name in _WEIGHTS:
        if (path / name).is_file():
            return _with_shards(path / name, source, lambda shard: _existing(path / shard))
    if (path / _ADAPTER).is_file():
        raise ValueError(f"{source}: {_ADAPTER_HELP}")
    others = sorted(p.name for p in path.iterdir() if p.suffix in (".safetensors", ".pt", ".pth", ".bin"))
    hint = f"; or name one of its files, such as {', '.join(others[:3])}" if others else ""
    raise ValueError(f"{source}: a folder without weights; expected one of {', '.join(_WEIGHTS)}{hint}")


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such file, nor its folder")
    raise ValueError(f"{path}: no such file{near(path.name, [p.name for p in path.parent.iterdir()])}")


def _with_shards(path: Path, source: str, fetch: Callable[[str], Path]) -> list[Path]:
    """The file itself, or the shards that an index lists."""
    if not path.name.endswith(".index.json"):
        return [path]
    try:
        shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{source}: {path.name} must hold a weight_map of file names ({error!r})") from error
    return [fetch(shard) for shard in shards]


def _from_hub(source: str) -> list[Path]:
    match = re.fullmatch(r"hf:(?P<repo>[^/@]+/[^/@]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?", source)
    if match is None:
        raise ValueError(f"{source}: must be hf:OWNER/REPO[/FILE][@REVISION]")
    repo, file, revision = match["repo"], match["file"], match["revision"]

    def fetch(name: str) -> Path:
        return Path(hf_hub_download(repo, name, revision=revision))

    offline = False
    try:
        for name in [file] if file else _WEIGHTS:
            try:
                files = _with_shards(fetch(name), source, fetch)
                for companion in _COMPANIONS:
                    _found(posixpath.join(posixpath.dirname(name), companion), fetch)
                return files
            except EntryNotFoundError as error:
                # Also where the hub is out of reach and this name is not in the cache, though another may be.
                offline |= isinstance(error, LocalEntryNotFoundError)
        if not file and _found(_ADAPTER, fetch):
            raise ValueError(f"{source}: {_ADAPTER_HELP}")
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{source}: the hub refuses it: {str(error).strip()}") from error
    where = "in the local cache, and the hub is out of reach" if offline else "in the repository"
    raise ValueError(f"{source}: found none of {file or ', '.join(_WEIGHTS)} {where}")


def _found(name: str, fetch: Callable[[str], Path]) -> bool:
    """Fetch a file that not every repository has."""
    try:
        return fetch(name).is_file()
    except EntryNotFoundError:
        return False
