"""Write a state dict atomically."""

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tasks.files.atomic import whole_file


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write next to `path`, force it to the disk, then rename; a failure leaves nothing behind.

    Names of one tensor are written with a copy each: .safetensors cannot share storage, and programs that load the
    names strictly need all of them.

    Raises:
        ValueError: if the file cannot be written, for instance without space on the device; `path` is unchanged.
    """
    try:
        with whole_file(path) as partial:
            save_file(_unshared(state), partial, {"format": "pt", **metadata})
            partial.chmod(0o666 & ~_umask())  # save_file lets only its owner read it
    except (OSError, SafetensorError) as error:
        size = sum(t.numel() * t.element_size() for t in state.values())
        raise ValueError(f"{path}: cannot write {size:,} bytes ({error}); nothing was left behind") from error


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share bytes with one before them."""
    unshared, places = {}, defaultdict[int, list[tuple[int, int]]](list)
    for name, tensor in state.items():
        whole = tensor.contiguous()
        start = whole.data_ptr()
        end = start + whole.numel() * whole.element_size()
        taken = places[whole.untyped_storage().data_ptr()]
        unshared[name] = whole.clone() if any(start < b and a < end for a, b in taken) else whole
        taken.append((start, end))
    return unshared


def _umask() -> int:
    """Return the process's mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
