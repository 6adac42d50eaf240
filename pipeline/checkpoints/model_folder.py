"""Write a merged model as a folder that `from_pretrained` of transformers loads."""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from huggingface_hub.constants import SAFETENSORS_WEIGHTS_FILE_PATTERN
from torch import Tensor

from pipeline.checkpoints.coverage import Part
from pipeline.checkpoints.files import CheckpointFiles, shown_source
from pipeline.checkpoints.writing import Sink, TensorFile, write_errors
from tasks.files.atomic import PARTIAL, sync, sync_folder
from tasks.files.models import WEIGHT_SUFFIXES

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
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
        models = [shown_source(source) for source in (self.base, *self.experts)]
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
    """Return whether `new_model_folder` made a folder, so that it may be replaced."""
    card = folder / "README.md"
    return card.is_file() and _MADE_BY in card.read_text(encoding="utf-8", errors="replace")


class _Shards:
    """New files of weights, each of at most `_LARGEST_SHARD`, with their index."""

    def __init__(self, folder: Path, outlines: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        # The hub's function for torch, like `empty_like` on the meta device, imports sympy: three CPU seconds.
        split = split_state_dict_into_shards_factory(
            dict(outlines),
            get_storage_size=lambda t: t.numel() * t.element_size(),
            filename_pattern=SAFETENSORS_WEIGHTS_FILE_PATTERN,
            max_shard_size=_LARGEST_SHARD,
        )
        self._files = dict[str, TensorFile]()
        for file, names in split.filename_to_tensors.items():
            shard = TensorFile(folder / file, {n: outlines[n] for n in names}, {} if split.is_sharded else metadata)
            self._files |= dict.fromkeys(names, shard)
        if split.is_sharded:
            index = {"metadata": {**split.metadata, **metadata}, "weight_map": split.tensor_to_filename}
            (folder / _INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")

    def write(self, name: str, start: int, piece: Tensor) -> None:
        """Write to the file that holds the tensor, as `writing.Sink.write`."""
        self._files[name].write(name, start, piece)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


@contextmanager
def new_model_folder(
    folder: Path, base: CheckpointFiles, outlines: Mapping[str, Tensor], metadata: Mapping[str, str], card: Card
) -> Iterator[Sink]:
    """Yield what takes the weights, for shards of at most 5 GB; add the base's configuration and tokenizer, and a card.

    Args:
        folder: the new folder; a partial one next to it is renamed at the end.
        base: gives the files that are copied.
        outlines: tensors of the merged model's types and shapes, without the further names of tied ones: transformers
            ties them again.
        metadata: of the file of weights, or of the index of shards.
        card: of the model.

    Raises:
        ValueError: if a file cannot be written, for instance without space on the device; nothing is left behind.
    """
    partial = folder.with_name(f"{folder.name}.{os.getpid()}{PARTIAL}")
    try:
        with write_errors(folder, outlines):
            partial.mkdir()
            shards = _Shards(partial, outlines, metadata)
            try:
                yield shards
            finally:
                shards.close()
            for path in _copied(base):
                shutil.copyfile(path, partial / path.name)
            _set_type(partial / _CONFIG, {t.dtype for t in outlines.values() if t.is_floating_point()})
            (partial / "README.md").write_text(card.text(), encoding="utf-8")
            sync(partial)
            if folder.is_dir():
                shutil.rmtree(folder)
            partial.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copied(base: CheckpointFiles) -> list[Path]:
    """Return the files that are copied from the base, if it has a configuration."""
    folder = base.folder or base.weights[0].parent
    if not (folder / _CONFIG).is_file():
        return []
    found = [p for p in folder.iterdir() if p.is_file() and p.name.endswith(_COPIED) and not p.name.startswith(".")]
    return [path for path in found if not path.name.endswith((*_NOT_COPIED, *WEIGHT_SUFFIXES))]


def _set_type(config: Path, types: Collection[torch.dtype]) -> None:
    """Give a configuration the type of the weights, if they have one: transformers loads them in its type."""
    if not config.is_file() or len(types) != 1:
        return
    content, (found,) = json.loads(config.read_text(encoding="utf-8")), types
    key = "torch_dtype" if "torch_dtype" in content else "dtype"
    name = str(found).removeprefix("torch.")
    if content.get(key, name) != name:
        config.write_text(json.dumps(content | {key: name}, indent=2) + "\n", encoding="utf-8")


def missing_files(base: CheckpointFiles) -> list[str]:
    """Return notes about files that a program may miss in the folder of a merged model."""
    copied = [path.name for path in _copied(base)]
    if _CONFIG not in copied:
        return [f"the base has no {_CONFIG}: the folder holds weights and a model card only"]
    if not any(name in copied for name in _TOKENIZERS):
        return ["the base has no tokenizer beside its weights, so the folder has none"]
    return []
