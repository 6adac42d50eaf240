"""Read one file into named tensors: safetensors, and pickles without running any of their code."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.checkpoints.pickles import Foreign, check_expanded, read_pickle
from pipeline.checkpoints.wrappers import WRAPPERS, find_state
from tasks.files.models import WEIGHT_SUFFIXES
from tasks.tensors import first_names

logger = logging.getLogger(__name__)


def read_tensors(path: Path, mapped: bool = False) -> dict[str, Tensor]:
    """Read all tensors of a file with one of `WEIGHT_SUFFIXES` onto the CPU, in the file's types.

    Args:
        path: of the file.
        mapped: leave the numbers of a pickle on the disk until they are used, if its format can.

    Raises:
        ValueError: if it is empty, damaged, of another kind, a pickle that needs code, or not a state dict of plain
            tensors.
    """
    if not path.name.endswith(WEIGHT_SUFFIXES):
        raise ValueError(f"{path}: must end in {', '.join(WEIGHT_SUFFIXES)}, got {path.suffix!r}")
    _check_readable(path)
    if path.suffix == ".safetensors":
        with safetensors_errors(path):
            return load_file(path)
    return _state(path, read_pickle(path, mapped))


@contextmanager
def safetensors_errors(path: Path) -> Iterator[None]:
    """Turn the errors of reading a .safetensors file into ValueErrors that name it.

    Raises:
        ValueError: if it is truncated or damaged, or has tensors of an unknown type.
    """
    try:
        yield
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated or not a safetensors file ({error}); fetch it again") from error
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error!r}); fetch it again") from error


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if empty:
        raise ValueError(f"{path}: the file is empty")


def _state(path: Path, content: object) -> dict[str, Tensor]:
    """Take the state dict out of its wrappers, and check it."""
    try:
        content, note = find_state(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if note:
        logger.warning("%s: %s", path, note)
    if isinstance(content, Foreign):
        raise ValueError(f"{path}: {content.refusal()}")
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: must hold a state dict, got {type(content).__name__}")
    _check_values(path, content)
    return {str(name): tensor.detach() for name, tensor in content.items()}


def _check_values(path: Path, content: Mapping[object, object]) -> None:
    for value in content.values():
        if isinstance(value, Foreign):
            raise ValueError(f"{path}: {value.refusal()}")
    strange = [f"{k!r} ({type(v).__name__})" for k, v in content.items() if not isinstance(v, Tensor)]
    if strange:
        raise ValueError(
            f"{path}: must hold tensors by name, got also {first_names(strange)}; "
            f"known wrappers are {', '.join(map(repr, WRAPPERS))}"
        )
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if bad := [f"{name} ({why})" for name, tensor in tensors.items() if (why := _unusual(tensor))]:
        raise ValueError(f"{path}: must hold plain tensors, got {first_names(bad)}")
    check_expanded(path, sum(t.numel() * t.element_size() for t in tensors.values()))


def _unusual(tensor: Tensor) -> str:
    """Return why a tensor has no plain numbers in memory, and what to do; "" if it has."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"a {type(tensor).__name__}: save plain tensors"
    if tensor.is_meta:
        return "without values, on the meta device: save the model after its weights are loaded"
    if tensor.is_quantized:
        return "quantised: save it after .dequantize()"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"{str(tensor.layout).removeprefix('torch.')}: save it after .to_dense()"
    return ""
