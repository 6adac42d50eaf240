"""Safe loading of checkpoints: any source to a state dict of finite tensors, with a content fingerprint."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.checkpoints.readers import read_tensors
from pipeline.checkpoints.sources import locate


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's weights as they are in a file.

    Attributes:
        source: as the user named it.
        state: tensors by name, on the CPU, in the file's types.
        fingerprint: of names, types, shapes and values: 16 hexadecimal digits, the same in every file format.
    """

    source: str
    state: Mapping[str, Tensor]
    fingerprint: str


def read_checkpoint(source: str) -> Checkpoint:
    """Read a checkpoint from where `source` says; no code of the file is ever run.

    Args:
        source: a `.safetensors`, `.pt`, `.pth` or `.bin` file, a folder of one model, `hf:OWNER/REPO[/FILE][@REVISION]`
            or `embedded/NAME` (see `sources.locate`).

    Raises:
        ValueError: not found, not readable, unsafe, or not a state dict of finite tensors; the file and the first names
            are given.
    """
    state: dict[str, Tensor] = {}
    for file in locate(source):
        state |= read_tensors(file)
    if not state:
        raise ValueError(f"{source}: holds no tensors")
    check_finite(source, state)
    return Checkpoint(source, state, fingerprint(state))


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and bytes in the order of the names: blake2b, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_finite(source: str, state: Mapping[str, Tensor]) -> None:
    """A checkpoint holds numbers.

    Raises:
        ValueError: it holds NaN or infinity; the source and the first names are given.
    """
    bad = [name for name, t in state.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(
            f"{source}: NaN or infinite values in {', '.join(bad[:3])}{more}: the training may have diverged"
        )
