"""Checkpoints and task vectors that are never in memory as a whole: each entry is read when it is used."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint, checked, read_checkpoint, whole
from pipeline.checkpoints.files import CheckpointFiles
from pipeline.checkpoints.quantised import check_plain, numbers
from pipeline.checkpoints.readers import safetensors_errors
from pipeline.merging.lazy_tensors import LazyTensors
from pipeline.merging.low_rank import LowRankDelta

#: Bytes read before the files are closed: every page read from an open file counts as this process's memory. Opening
#: a file takes 0.25 ms.
MAX_MAPPED = 1 << 23
#: Types by safetensors' names; float8 is read as bfloat16.
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_TYPES |= {"BOOL": torch.bool, "C64": torch.complex64, "U8": torch.uint8, "I8": torch.int8}
_TYPES |= {f"I{bits}": getattr(torch, f"int{bits}") for bits in (16, 32, 64)}
_TYPES |= {f"U{bits}": getattr(torch, f"uint{bits}") for bits in (16, 32, 64)}


class StoredTensors(LazyTensors):
    """The tensors of .safetensors files by name; at most `MAX_MAPPED` bytes and one tensor stay in memory."""

    def __init__(self, files: Sequence[Path], device: torch.device | str = "cpu") -> None:
        """Read the names; tensors are read to `device`.

        Raises:
            ValueError: if a file is truncated, or of another format.
        """
        self._device = str(device)
        self._files: dict[str, Path] = {}
        super().__init__(self._files)
        self.kinds: dict[str, str] = {}
        """Type of each tensor, in safetensors' words."""
        self._shapes: dict[str, torch.Size] = {}
        self._open: dict[Path, safe_open] = {}
        self._mapped = 0
        for path in files:
            with safetensors_errors(path), safe_open(path, "pt") as file:
                self._files.update(dict.fromkeys(file.keys(), path))
                for name in file.keys():  # noqa: SIM118
                    tensor = file.get_slice(name)
                    self.kinds[name], self._shapes[name] = tensor.get_dtype(), torch.Size(tensor.get_shape())

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor in the file's type; float8 as bfloat16.

        Raises:
            ValueError: if its type is unknown.
        """
        path = self._files[name]
        if self._mapped > MAX_MAPPED:
            self._open, self._mapped = {}, 0
        with safetensors_errors(path):
            if path not in self._open:
                self._open[path] = safe_open(path, "pt", self._device)
            tensor: Tensor = self._open[path].get_tensor(name)  # type: ignore[no-untyped-call]
        self._mapped += tensor.nbytes
        return numbers(tensor)

    def outline(self) -> dict[str, Tensor]:
        """Return tensors without values, of the types and shapes of those in the files; nothing is read."""
        types = {name: _TYPES.get(kind, torch.bfloat16) for name, kind in self.kinds.items()}
        return {name: torch.empty(self._shapes[name], dtype=types[name], device="meta") for name in self._files}


class Renamed(LazyTensors):
    """Tensors under other names; each is read when it is used."""

    def __init__(self, state: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        """Take new name -> name in `state`."""
        super().__init__(names)
        self._state, self._old = state, names

    @staticmethod
    def of(state: Mapping[str, Tensor], names: Mapping[str, str]) -> Mapping[str, Tensor]:
        """Rename; tensors that are in memory stay a dictionary, in which tied ones can be found."""
        if isinstance(state, dict):
            return {new: state[name] for new, name in names.items()}
        return Renamed(state, names)

    def outline(self) -> dict[str, Tensor]:
        """Return tensors without values, as `outline`."""
        inner = outline(self._state)
        return {new: inner[name] for new, name in self._old.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor."""
        return self._state[self._old[name]]


class Adapted(LazyTensors):
    """A model plus a low-rank change of some of its weights, in its types; each is computed when it is used."""

    def __init__(self, state: Mapping[str, Tensor], change: LowRankDelta) -> None:
        """Take the model, and the change over all its names."""
        super().__init__(state)
        self._state, self._change = state, change

    def outline(self) -> dict[str, Tensor]:
        """Return tensors without values, as `outline`."""
        return dict(outline(self._state))

    def __getitem__(self, name: str) -> Tensor:
        """Compute one tensor."""
        tensor = self._state[name]
        if name not in self._change.factors:
            return tensor
        return (tensor.float() + self._change[name]).to(tensor.dtype)


def outline(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return tensors of the same types and shapes; those of .safetensors files are not read, and have no values."""
    return state.outline() if isinstance(state, StoredTensors | Renamed | Adapted) else state


class Difference(LazyTensors):
    """A task vector: the expert's weights minus the base's, in float32, computed each time an entry is read."""

    def __init__(self, base: Mapping[str, Tensor], expert: Mapping[str, Tensor]) -> None:
        """Take two state dicts; the expert has all names of `base`, in the same shapes."""
        super().__init__(base)
        self._base, self._expert = base, expert

    def __getitem__(self, name: str) -> Tensor:
        """Compute one entry, a new float32 tensor."""
        return self._expert[name].float() - self._base[name].float()


def open_checkpoint(source: CheckpointFiles | str) -> Checkpoint:
    """Open a whole model as `read_checkpoint` does, but leave the tensors of .safetensors files on the disk until read.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    files = whole(source)
    if any(file.suffix != ".safetensors" for file in files.weights):
        return read_checkpoint(files)
    stored = StoredTensors(files.weights)
    check_plain(files.label, stored.kinds, files.weights[0].parent)
    return checked(files.label, stored)
