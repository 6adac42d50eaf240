"""Write a merged model as a folder that `from_pretrained` of transformers loads."""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor

from pipeline.checkpoints.coverage import Part
from pipeline.checkpoints.files import CheckpointFiles
from tasks.files.atomic import PARTIAL, sync, sync_folder
from tasks.files.models import WEIGHT_SUFFIXES

_CONFIG = "config.json"
#: Bytes of a shard, as transformers' default.
_LARGEST_SHARD = "5GB"
#: Ends of the names of configurations, tokenizers and chat templates, which are copied from the base.
_COPIED = (".json", ".jinja", ".model", ".txt", ".tiktoken")
_NOT_COPIED = (".index.json", "adapter_config.json")
#: In the model card: a folder with it may be replaced.
_MADE_BY = "Made by LiNeS Sweep's `lines merge`"
#: Files of which a base for texts has one.
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True, slots=True)
class Card:
    """The content of the model card.

    Attributes:
        base: as the user wrote it.
        experts: the same.
        recipe: of the merge, as text.
        coverage: what became of every tensor.
        language: of the recipe's text.
    """

    base: str
    experts: Sequence[str]
    recipe: str
    coverage: Sequence[Part]
    language: str = "json"

    def text(self) -> str:
        """Return README.md. Paths of this machine are not in it: folders and files are named without their place."""
        models = [_shown(source) for source in (self.base, *self.experts)]
        hub = [source.removeprefix("hf:") for source in (self.base, *self.experts) if source.startswith("hf:")]
        head = ["---", "library_name: transformers", "tags: [merge, lines]"]
        head += ["base_model:", *(f"- {name}" for name in hub)] if hub else []
        lines = [
            *head,
            "---",
            "# Merged model",
            "",
            f"Base: {models[0]}. Experts: {', '.join(models[1:])}. {_MADE_BY}.",
            "",
            f"```{self.language}",
            self.recipe.strip(),
            "```",
            "",
            *(f"- {part}" for part in self.coverage),
            "",
        ]
        return "\n".join(lines)


def is_merged_folder(folder: Path) -> bool:
    """Return whether `write_model_folder` made a folder, so that it may be replaced."""
    card = folder / "README.md"
    return card.is_file() and _MADE_BY in card.read_text(encoding="utf-8", errors="replace")


def write_model_folder(
    folder: Path, base: CheckpointFiles, state: Mapping[str, Tensor], metadata: Mapping[str, str], card: Card
) -> list[str]:
    """Write weights in shards of at most 5 GB, the base's configuration and tokenizer, and a model card.

    Tied tensors are written once; transformers ties them again.

    Args:
        folder: the new folder; a partial one next to it is renamed at the end.
        base: gives the files that are copied.
        state: of the merged model.
        metadata: of every file of weights.
        card: of the model.

    Returns:
        Notes about files that a program may miss.

    Raises:
        ValueError: if a file cannot be written, for instance without space on the device; nothing is left behind.
    """
    partial = folder.with_name(f"{folder.name}.{os.getpid()}{PARTIAL}")
    try:
        partial.mkdir()
        save_torch_state_dict(
            dict(state), partial, max_shard_size=_LARGEST_SHARD, metadata={**metadata, "format": "pt"}
        )
        copied = _copy(base, partial)
        _set_type(partial / _CONFIG, {tensor.dtype for tensor in state.values() if tensor.is_floating_point()})
        (partial / "README.md").write_text(card.text(), encoding="utf-8")
        sync(partial)
        if folder.is_dir():
            shutil.rmtree(folder)
        partial.rename(folder)
        sync_folder(folder.parent)
    except (OSError, SafetensorError) as error:
        size = sum(t.numel() * t.element_size() for t in state.values())
        raise ValueError(f"{folder}: cannot write {size:,} bytes ({error}); nothing was left behind") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _notes(copied)


def _copy(base: CheckpointFiles, to: Path) -> list[str]:
    folder = base.folder or base.weights[0].parent
    if not (folder / _CONFIG).is_file():
        return []
    found = [p for p in folder.iterdir() if p.is_file() and p.name.endswith(_COPIED) and not p.name.startswith(".")]
    kept = [p for p in found if not p.name.endswith((*_NOT_COPIED, *WEIGHT_SUFFIXES))]
    for path in kept:
        shutil.copyfile(path, to / path.name)
    return [path.name for path in kept]


def _set_type(config: Path, types: Collection[torch.dtype]) -> None:
    """Give a configuration the type of the weights, if they have one: transformers loads them in its type."""
    if not config.is_file() or len(types) != 1:
        return
    content, (found,) = json.loads(config.read_text(encoding="utf-8")), types
    key = "torch_dtype" if "torch_dtype" in content else "dtype"
    name = str(found).removeprefix("torch.")
    if content.get(key, name) != name:
        config.write_text(json.dumps(content | {key: name}, indent=2) + "\n", encoding="utf-8")


def _notes(copied: Sequence[str]) -> list[str]:
    if _CONFIG not in copied:
        return [f"the base has no {_CONFIG}: the folder holds weights and a model card only"]
    if not any(name in copied for name in _TOKENIZERS):
        return ["the base has no tokenizer beside its weights, so the folder has none"]
    return []


def _shown(source: str) -> str:
    return source if source.startswith(("hf:", "embedded/")) else Path(source).name
