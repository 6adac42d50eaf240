"""Tensors in pieces that fit a core's cache: each is read, used and dropped, so no tensor is in memory as a whole."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pipeline.merging.lazy_tensors import LazyTensors
from pipeline.merging.parameter_pieces import places_of


class PieceReader(LazyTensors, ABC):
    """Tensors of which types, shapes and parts are read without the rest."""

    @abstractmethod
    def outline(self) -> dict[str, Tensor]:
        """Return tensors without values, of the same types and shapes."""

    @abstractmethod
    def piece(self, name: str, place: slice) -> Tensor:
        """Read entries of one tensor, which is taken as flat."""

    def unchecked(self, name: str, place: slice) -> Tensor:
        """Read entries as `piece`, for a caller that checks what it computes of them to be finite."""
        return self.piece(name, place)


class Cut(LazyTensors):
    """Pieces of tensors, each under a key of its own and read each time it is used."""

    def __init__(
        self, state: Mapping[str, Tensor], places: Mapping[str, tuple[str, slice]], checked: bool = True
    ) -> None:
        """Take key -> name of a tensor and place in it (see `cut`); and how to read (see `read_piece`)."""
        super().__init__(places)
        self._state, self._places, self._checked = state, places, checked

    def __getitem__(self, key: str) -> Tensor:
        """Read one piece, which is flat."""
        return read_piece(self._state, *self._places[key], self._checked)


def outline(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return tensors of the same types and shapes; those of .safetensors files are not read, and have no values."""
    return state.outline() if isinstance(state, PieceReader) else state


def read_piece(state: Mapping[str, Tensor], name: str, place: slice, checked: bool = True) -> Tensor:
    """Read entries of one tensor, which is taken as flat; if not `checked`, as `PieceReader.unchecked`."""
    if isinstance(state, PieceReader):
        return state.piece(name, place) if checked else state.unchecked(name, place)
    return state[name].reshape(-1)[place]


def cut(outlines: Mapping[str, Tensor]) -> dict[str, tuple[str, slice]]:
    """Return a key for each piece, with the tensor's name and the place in it; empty tensors have none."""
    places = {name: places_of(tensor.numel()) for name, tensor in outlines.items()}
    return {f"{name}[{place.start}:]": (name, place) for name, each in places.items() for place in each}


def pieces_of(state: Mapping[str, Tensor], name: str, size: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the pieces of a tensor of `size` entries, each with the place of its first entry."""
    flat = None if isinstance(state, PieceReader) else state[name].reshape(-1)
    for place in places_of(size):
        yield place.start, read_piece(state, name, place) if flat is None else flat[place]


def is_finite(tensor: Tensor) -> bool:
    """Return whether all entries are finite: ten times faster than `isfinite`, which writes a mask."""
    return not tensor.numel() or all(math.isfinite(bound) for bound in torch.aminmax(tensor))
