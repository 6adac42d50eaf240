"""Checkpoints and task vectors that are never in memory as a whole: each entry is read when it is used."""

import os
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint, check_filled, checked, read_checkpoint, whole
from pipeline.checkpoints.files import CheckpointFiles
from pipeline.checkpoints.first_read import CheckedWhenRead
from pipeline.checkpoints.known_fingerprints import KnownFingerprints
from pipeline.checkpoints.pieces import PieceReader, outline, read_piece
from pipeline.checkpoints.quantised import check_plain, numbers
from pipeline.checkpoints.readers import safetensors_errors
from pipeline.checkpoints.stored_layout import TYPES, Place, read_places
from pipeline.merging.lazy_tensors import LazyTensors
from pipeline.merging.low_rank import LowRankDelta


class StoredTensors(PieceReader):
    """The tensors of .safetensors files by name; none stays in memory."""

    def __init__(self, files: Sequence[Path], device: torch.device | str = "cpu") -> None:
        """Read the names; tensors are read to `device`.

        Raises:
            ValueError: if a file is truncated, or of another format.
        """
        self._device = torch.device(device)
        self._places: dict[str, Place] = {}
        for path in files:
            with safetensors_errors(path), safe_open(path, "pt"):  # which checks the header
                self._places.update(read_places(path))
        super().__init__(self._places)
        self.kinds = {name: place.kind for name, place in self._places.items()}
        """Type of each tensor, in safetensors' words."""

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor in the file's type; float8 as bfloat16.

        Raises:
            ValueError: if its type is unknown.
        """
        shape = self._places[name].shape
        return self.piece(name, slice(0, shape.numel())).view(shape).to(self._device)

    def piece(self, name: str, place: slice) -> Tensor:
        """Read entries of one tensor as `__getitem__` does, into memory that nothing else uses."""
        stored = self._places[name]
        with safetensors_errors(stored.path):
            if stored.kind in TYPES:
                return numbers(_read(stored, place))
            with safe_open(stored.path, "pt") as file:
                tensor: Tensor = file.get_tensor(name)
            return numbers(tensor).reshape(-1)[place]

    def outline(self) -> dict[str, Tensor]:
        """Return tensors without values, of the types and shapes of those in the files; nothing is read."""
        return dict(self._outline)

    @cached_property
    def _outline(self) -> dict[str, Tensor]:
        empty = {
            name: torch.empty(place.shape, dtype=TYPES.get(place.kind, torch.bfloat16), device="meta")
            for name, place in self._places.items()
        }
        return {name: numbers(tensor) for name, tensor in empty.items()}


def _read(stored: Place, place: slice) -> Tensor:
    """Read into new memory: pages of a mapped file would count as this process's memory as long as it is open."""
    tensor = torch.empty(place.stop - place.start, dtype=TYPES[stored.kind])
    left = tensor.view(torch.uint8).numpy().data
    at = stored.start + place.start * tensor.element_size()
    with stored.path.open("rb", buffering=0) as file:
        while left:
            count = os.preadv(file.fileno(), [left], at)
            if not count:
                raise OSError("the file ends too early")
            left, at = left[count:], at + count
    return tensor


class Renamed(PieceReader):
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
        """Return tensors without values, as `pieces.outline`."""
        inner = outline(self._state)
        return {new: inner[name] for new, name in self._old.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor."""
        return self._state[self._old[name]]

    def piece(self, name: str, place: slice) -> Tensor:
        """Read entries of one tensor."""
        return read_piece(self._state, self._old[name], place)

    def unchecked(self, name: str, place: slice) -> Tensor:
        """Read entries as `PieceReader.unchecked`."""
        return read_piece(self._state, self._old[name], place, checked=False)


class Adapted(PieceReader):
    """A model plus a low-rank change of some of its weights, in its types; each is computed when it is used."""

    def __init__(self, state: Mapping[str, Tensor], change: LowRankDelta) -> None:
        """Take the model, and the change over all its names."""
        super().__init__(state)
        self._state, self._change = state, change
        self._last: tuple[str, Tensor] | None = None

    def outline(self) -> dict[str, Tensor]:
        """Return tensors without values, as `pieces.outline`."""
        return dict(outline(self._state))

    def __getitem__(self, name: str) -> Tensor:
        """Compute one tensor."""
        tensor = self._state[name]
        if name not in self._change.factors:
            return tensor
        return (tensor.float() + self._change[name]).to(tensor.dtype)

    def piece(self, name: str, place: slice) -> Tensor:
        """Return entries of one tensor, which is kept until another is used: rows of a product may have other bits."""
        if name not in self._change.factors:
            return read_piece(self._state, name, place)
        last = self._last
        if last is None or last[0] != name:
            self._last = last = (name, self[name])
        return last[1].reshape(-1)[place]


def only(state: Mapping[str, Tensor], names: Collection[str]) -> Mapping[str, Tensor]:
    """Return the tensors of these names, in their order; none is read."""
    return Renamed.of(state, {name: name for name in names})


class LastWide(LazyTensors):
    """Tensors in float32, of which the last stays in memory: one thread reads each for several experts in turn."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors."""
        super().__init__(state)
        self._state = state
        self._last: tuple[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        """Return one tensor."""
        last = self._last
        if last is None or last[0] != name:
            self._last = last = (name, self._state[name].float())
        return last[1]


class Difference(LazyTensors):
    """A task vector: the expert's weights minus the base's, in float32, computed each time an entry is read."""

    makes_new = True

    def __init__(self, base: Mapping[str, Tensor], expert: Mapping[str, Tensor]) -> None:
        """Take two state dicts; the expert has all names of `base`, in the same shapes."""
        super().__init__(base)
        self._base, self._expert = base, expert

    def __getitem__(self, name: str) -> Tensor:
        """Compute one entry, a new float32 tensor."""
        expert, base = self._expert[name], self._base[name].float()
        # A float32 tensor may be the expert's own; its copy is nobody's.
        return expert - base if expert.dtype == torch.float32 else expert.float().sub_(base)


def open_checkpoint(source: CheckpointFiles | str) -> Checkpoint:
    """Open a whole model as `read_checkpoint` does, but leave the tensors of .safetensors files on the disk until read.

    Args:
        source: the located files, or the source as a user writes it.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    files = whole(source)
    known, stored = KnownFingerprints(files.weights), _stored(files)
    return read_checkpoint(files) if stored is None else checked(files.label, stored, known=known)


def open_unchecked(source: CheckpointFiles | str) -> Checkpoint:
    """Open a whole model as `open_checkpoint` does, without a fingerprint, and read no numbers of .safetensors files.

    They are checked when they are first read: call `finish` of a state that is `CheckedWhenRead` at the end.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    files = whole(source)
    stored = _stored(files)
    if stored is None:
        return read_checkpoint(files, hashed=False)
    check_filled(files.label, stored)
    return Checkpoint(files.label, CheckedWhenRead(files.label, stored), "")


def _stored(files: CheckpointFiles) -> StoredTensors | None:
    """Return the tensors of .safetensors files; None if any file has another format."""
    if any(file.suffix != ".safetensors" for file in files.weights):
        return None
    stored = StoredTensors(files.weights)
    check_plain(files.label, stored.kinds, files.weights[0].parent)
    return stored
