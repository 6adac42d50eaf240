"""Fetching, hashing and reading of a reward model's folder."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.files.cache import digest
from tasks.language.models import check_config, model_folder, read_files, read_tokenizer

#: Suffixes of files that scores depend on, unlike readme files, training logs and checkpoints in subfolders.
_SUFFIXES = {".bin", ".json", ".model", ".safetensors", ".txt"}


def reward_folder(source: str) -> Path:
    """Return the folder that `model_folder` finds for `source`.

    Raises:
        ValueError: if there is none; the message starts with the option's name.
    """
    try:
        return model_folder(source)
    except ValueError as error:
        raise ValueError(f"options.model: {error}") from error


def folder_fingerprint(folder: Path) -> str:
    """Return the content hash of the files of a model and its tokenizer, sorted by name."""
    files = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    return digest(part for file in files for part in (file.name, file_digest(file)))


def file_digest(path: Path) -> bytes:
    """Return 16 bytes of a file's blake2b, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def read_model(kind: Any, source: str, device: torch.device, unused: str = "") -> PreTrainedModel:
    """Read a model in float32, for scoring.

    Args:
        kind: the AutoModel class that builds it.
        source: see `reward_folder`.
        device: of the model.
        unused: tensors whose name holds this may be missing, unless it is "".

    Raises:
        ValueError: if the model is of another kind, or weights are missing, which would be random.
    """
    folder = reward_folder(source)
    try:
        check_config(source, folder)
        model, report = read_files(
            source,
            lambda: kind.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=False, weights_only=True, output_loading_info=True
            ),
        )
    except ValueError as error:
        # Without transformers' list of all kinds of models.
        raise ValueError(f"options.model: {str(error).partition(' Model type should')[0]}") from error
    missing = sorted(name for name in report["missing_keys"] if not (unused and unused in name))
    if missing:
        raise ValueError(
            f"options.model: {source}: is not a {type(model).__name__}: {len(missing)} tensors are missing, for "
            f"example {missing[0]}"
        )
    assert isinstance(model, PreTrainedModel)
    model.train(False).to(device)
    return model


def read_fast_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Read the model's tokenizer, padding on the right, which attention masks hide from any kind of model.

    Raises:
        ValueError: if there is none, or it is not a fast one.
    """
    try:
        tokenizer = read_tokenizer(source)
    except ValueError as error:
        raise ValueError(f"options.model: {error}") from error
    if not tokenizer.is_fast:
        raise ValueError(f"options.model: {source}: needs a fast tokenizer, saved as tokenizer.json")
    tokenizer.padding_side = "right"
    return tokenizer
