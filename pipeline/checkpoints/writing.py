"""Write a state dict atomically, all at once or piece by piece."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pipeline.checkpoints.stored_layout import header_of
from tasks.files.atomic import whole_file


class Sink(Protocol):
    """Takes the pieces of tensors, from several threads and in any order."""

    def write(self, name: str, start: int, piece: Tensor) -> None:
        """Take entries of a tensor of the outline, in its type; `start` is the place of the first."""


class TensorFile:
    """A new .safetensors file, whose tensors are written in any order."""

    def __init__(self, path: Path, outline: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Create the file with its header.

        Args:
            path: of the new file.
            outline: tensors of the types and shapes to write; values are not used.
            metadata: for the header.
        """
        header, self._starts, size = header_of(outline, {"format": "pt", **metadata})
        self._sizes = {name: tensor.element_size() for name, tensor in outline.items()}
        self._file = path.open("wb", buffering=0)
        self._file.truncate(size)
        self._write(header, 0)

    def write(self, name: str, start: int, piece: Tensor) -> None:
        """Write entries of a tensor, as `Sink.write`."""
        numbers = piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        self._write(numbers, self._starts[name] + start * self._sizes[name])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, content: bytes | memoryview, at: int) -> None:
        left = memoryview(content)
        while left:
            count = os.pwrite(self._file.fileno(), left, at)
            left, at = left[count:], at + count


@contextmanager
def new_file(path: Path, outline: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[TensorFile]:
    """Yield a file next to `path`; at the end force it to the disk, then rename it. A failure leaves nothing behind.

    Raises:
        ValueError: if the file cannot be written, for instance without space on the device; `path` is unchanged.
    """
    with write_errors(path, outline), whole_file(path) as partial:
        file = TensorFile(partial, outline, metadata)
        try:
            yield file
        finally:
            file.close()


@contextmanager
def write_errors(path: Path, outline: Mapping[str, Tensor]) -> Iterator[None]:
    """Turn errors of the system into a ValueError that gives the path and the size."""
    try:
        yield
    except OSError as error:
        size = sum(t.numel() * t.element_size() for t in outline.values())
        raise ValueError(f"{path}: cannot write {size:,} bytes ({error}); nothing was left behind") from error


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write next to `path`, force it to the disk, then rename; a failure leaves nothing behind.

    Names of one tensor are written with a copy each: .safetensors cannot share storage, and programs that load the
    names strictly need all of them.

    Raises:
        ValueError: if the file cannot be written, for instance without space on the device; `path` is unchanged.
    """
    with new_file(path, state, metadata) as file:
        for name, tensor in state.items():
            file.write(name, 0, tensor)
