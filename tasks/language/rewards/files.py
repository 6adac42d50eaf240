"""The folder of a reward's model: fetched, hashed, read."""

import hashlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.files.cache import digest
from tasks.language.models import check_config, model_folder, read_tokenizer, readable

#: What a model's scores depend on; readme files, training logs and checkpoints in folders below do not matter.
_SUFFIXES = {".bin", ".json", ".model", ".safetensors", ".txt"}


def reward_folder(source: str) -> Path:
    """The folder of `source`, as `model_folder` finds it.

    Raises:
        ValueError: no such folder; the option's name is before the message.
    """
    try:
        return model_folder(source)
    except ValueError as error:
        raise ValueError(f"options.model: {error}") from error


def folder_fingerprint(folder: Path) -> str:
    """Content hash of the files of a model and its tokenizer, by name."""
    files = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    return digest(part for file in files for part in (file.name, file_digest(file)))


def file_digest(path: Path) -> bytes:
    """blake2b of a file, read in pieces, 16 bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def read_model(kind: Any, source: str, device: torch.device, unused: str = "") -> PreTrainedModel:
    """Read a model in float32, for scoring.

    Args:
        kind: the AutoModel class that builds it.
        source: as `reward_folder` takes it.
        device: where it works.
        unused: tensors whose name holds this need not be there, where it is not "".

    Raises:
        ValueError: no such kind of model, or weights that are not all there, which would be random.
    """
    folder = reward_folder(source)
    try:
        check_config(source, folder)
        model, report = readable(
            source,
            lambda: kind.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=False, weights_only=True, output_loading_info=True
            ),
        )
    except UnpicklingError as error:
        raise ValueError(
            f"options.model: {source}: its .bin holds more than tensors, and code of a file is never run: save the "
            "weights as safetensors"
        ) from error
    except SafetensorError as error:
        raise ValueError(f"options.model: {source}: its weights are damaged: {error}") from error
    except ValueError as error:
        # transformers goes on to list all kinds of models that there are.
        raise ValueError(f"options.model: {str(error).partition(' Model type should')[0]}") from error
    missing = sorted(name for name in report["missing_keys"] if not (unused and unused in name))
    if missing:
        raise ValueError(
            f"options.model: {source}: is no {type(model).__name__}: {len(missing)} tensors are missing, such as "
            f"{missing[0]}"
        )
    assert isinstance(model, PreTrainedModel)
    model.train(False).to(device)
    return model


def read_fast_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Read the model's own tokenizer; it pads on the right, where attention masks hide it from any kind of model.

    Raises:
        ValueError: there is none, or it does not know where in the text its tokens lie.
    """
    try:
        tokenizer = read_tokenizer(source)
    except ValueError as error:
        raise ValueError(f"options.model: {error}") from error
    if not tokenizer.is_fast:
        raise ValueError(f"options.model: {source}: needs a fast tokenizer, saved as tokenizer.json")
    tokenizer.padding_side = "right"
    return tokenizer
