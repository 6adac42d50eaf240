"""Write a state dict atomically."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tasks.files.atomic import whole_file


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write next to `path`, flush to the device, then rename; a failure leaves nothing behind.

    Raises:
        ValueError: if the file cannot be written, for instance without space on the device; `path` is unchanged.
    """
    try:
        with whole_file(path) as partial:
            save_file({name: t.contiguous() for name, t in state.items()}, partial, {"format": "pt", **metadata})
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.chmod(0o666 & ~_umask())  # save_file lets only its owner read it
    except (OSError, SafetensorError) as error:
        size = sum(t.numel() * t.element_size() for t in state.values())
        raise ValueError(f"{path}: cannot write {size:,} bytes ({error}); nothing was left behind") from error


def _umask() -> int:
    """Return the process's mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
