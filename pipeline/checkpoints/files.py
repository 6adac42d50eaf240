"""Locate the files of a checkpoint on this machine: from a parsed source to paths, once for each source."""

import difflib
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from tasks.embedded import BUILT_HERE, adapter_path, checkpoint_names, model_path, not_built
from tasks.embedded.sums import check
from tasks.files.cache import built
from tasks.files.hub import hub_silence, out_of_reach
from tasks.files.models import ADAPTER_WEIGHTS, COMPANIONS, INDEX_SUFFIX, WEIGHT_SUFFIXES, WEIGHTS, nearby, shards_of
from tasks.files.sources import HubName, Source
from tasks.registry import near

_ADAPTER = "adapter_config.json"
#: Returns the path of a file of a folder or repository, by its name there.
_Fetch = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The files of a checkpoint on this machine.

    Attributes:
        source: what the user wrote, parsed.
        weights: the file of weights, or its shards; of a LoRA adapter, its factors.
        place: the file or folder as a model family's `select` gets it: it names it in errors, and looks for a
            configuration beside the weights.
        folder: the folder of one model or adapter; None if the source names one file.
        adapter_config: adapter_config.json of a LoRA adapter; None for a whole model.
    """

    source: Source
    weights: tuple[Path, ...]
    place: str
    folder: Path | None = None
    adapter_config: Path | None = None

    @property
    def label(self) -> str:
        """The source as the user wrote it, for errors."""
        return self.source.text

    def check_whole(self) -> None:
        """Refuse an adapter.

        Raises:
            ValueError: if it is a LoRA adapter.
        """
        if self.adapter_config:
            raise ValueError(
                f"{self.label}: a LoRA adapter, not a whole model: `experts` of a spec take it as it is; elsewhere "
                "load it with peft, call merge_and_unload() and save_pretrained(FOLDER), and give that folder"
            )


def locate(source: Source | str) -> CheckpointFiles:
    """Locate a whole model, or a LoRA adapter; fetch its files if a URL or the Hugging Face hub has them.

    Args:
        source: parsed, or as a user writes it (see `tasks.files.sources.SourceKind`). A folder or repository with the
            weights of a whole model is a whole model, also if it holds an adapter too.

    Raises:
        ValueError: if there is no such checkpoint (near names are given), or the hub refuses.

    Example:
        >>> locate("embedded/base").weights[0].name
        'base.safetensors'
    """
    source = Source.parse(source) if isinstance(source, str) else source
    match source.kind:
        case "hub":
            return _from_hub(source)
        case "embedded":
            return _embedded(source)
        case "tag":
            raise ValueError(f"{source.text}: open_clip's tags name a whole model: only `base` of a spec takes one")
    here = nearby(source.text)
    path = Path(here).expanduser()
    if path.is_dir():
        return _in_folder(source, path, here)
    if not path.is_file() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", here) and not path.parent.is_dir():
        raise ValueError(f"{here}: no such file, nor its folder; a repository of the hub is written hf:{here}")
    return CheckpointFiles(source, _beside(_existing(path), source), here)


def _beside(path: Path, source: Source) -> tuple[Path, ...]:
    """The file itself, or the shards next to an index."""
    return _with_shards(path, source, lambda shard: _existing(path.with_name(shard)))


def _embedded(source: Source) -> CheckpointFiles:
    """Locate a checkpoint that is shipped with the package, or was built into the cache."""
    folder = Path(str(files("tasks"))) / "embedded" / "checkpoints"
    if (path := folder / f"{source.name}.safetensors").is_file():
        check(path)
        return CheckpointFiles(source, (path,), source.text)
    if shipped := model_path(source.name) or adapter_path(source.name):
        for weights in shipped.glob("*.safetensors"):
            check(weights)
        return _in_folder(source, shipped, source.text)
    if model := built(source.name):
        return _in_folder(source, model, source.text)
    if source.name in BUILT_HERE:
        raise ValueError(f"{source.text}: {not_built(source.name)}")
    raise ValueError(f"{source.text}: not embedded; {near(source.name, [*checkpoint_names(), *BUILT_HERE])}")


def _in_folder(source: Source, folder: Path, place: str) -> CheckpointFiles:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return CheckpointFiles(source, _beside(folder / name, source), place, folder)
    if adapter := _adapter(source, lambda name: folder / name):
        return adapter
    others = sorted(p.name for p in folder.iterdir() if p.name.endswith(WEIGHT_SUFFIXES))
    hint = f"; or name one of its files, such as {', '.join(others[:3])}" if others else ""
    raise ValueError(f"{source.text}: a folder without weights; expected one of {', '.join(WEIGHTS)}{hint}")


def _adapter(source: Source, fetch: _Fetch) -> CheckpointFiles | None:
    """Locate the adapter in a folder or repository without a whole model; None if it holds none."""
    if not _exists(_ADAPTER, fetch):
        return None
    for name in ADAPTER_WEIGHTS:
        if _exists(name, fetch):
            config, factors = fetch(_ADAPTER), fetch(name)
            return CheckpointFiles(source, (factors,), source.text, config.parent, config)
    raise ValueError(f"{source.text}: has {_ADAPTER}, but none of {', '.join(ADAPTER_WEIGHTS)} beside it")


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such file, nor its folder")
    # Only close names, as the folder may be a home directory; equal suffixes make all names closer than they are.
    others = sorted(p.name for p in path.parent.iterdir() if p.name.endswith(WEIGHT_SUFFIXES))
    close = difflib.get_close_matches(path.name, others, cutoff=0.8)
    raise ValueError(f"{path}: no such file" + (f"; did you mean {' or '.join(map(repr, close))}?" if close else ""))


def _with_shards(path: Path, source: Source, fetch: _Fetch) -> tuple[Path, ...]:
    """The file itself, or the shards that an index lists."""
    if not path.name.endswith(INDEX_SUFFIX):
        return (path,)
    shards = shards_of(path.read_bytes(), f"{source.text}: {path.name}")
    if not shards:
        raise ValueError(f"{source.text}: {path.name} must name files, got none")
    return tuple(fetch(shard) for shard in shards)


def _from_hub(source: Source) -> CheckpointFiles:
    hub, silent, offline = HubName.of(source), hub_silence() is not None, False

    def fetch(name: str) -> Path:
        return Path(hf_hub_download(hub.repo, name, revision=hub.revision, local_files_only=silent))

    with _refusals(source):
        for name in [hub.file] if hub.file else WEIGHTS:
            try:
                beside = partial(posixpath.join, posixpath.dirname(name))
                weights = _with_shards(fetch(name), source, _composed(fetch, beside))
                for companion in COMPANIONS:
                    _exists(beside(companion), fetch)
                return CheckpointFiles(source, weights, str(weights[0]), None if hub.file else weights[0].parent)
            except EntryNotFoundError as error:
                # Also if the hub is out of reach and this name is not in the cache, though another may be.
                offline |= isinstance(error, LocalEntryNotFoundError)
        if not hub.file and (adapter := _adapter(source, fetch)):
            return adapter
    names = hub.file or ", ".join(WEIGHTS)
    if offline:
        raise ValueError(f"{source.text}: found none of {names} in the local cache, and {out_of_reach()}")
    raise ValueError(f"{source.text}: found none of {names} in the repository")


def _composed(fetch: _Fetch, beside: Callable[[str], str]) -> _Fetch:
    return lambda name: fetch(beside(name))


@contextmanager
def _refusals(source: Source) -> Iterator[None]:
    try:
        yield
    except EntryNotFoundError:
        raise
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{source.text}: the hub refuses it: {str(error).strip()}") from error


def _exists(name: str, fetch: _Fetch) -> bool:
    """Fetch a file that not every repository or folder has."""
    try:
        return fetch(name).is_file()
    except EntryNotFoundError:
        return False


def shown_source(source: str) -> str:
    """Return a source as a published card may name it: a path of this machine by its last part."""
    return source if source.startswith(("hf:", "embedded/", "pretrained:")) else Path(source).name
