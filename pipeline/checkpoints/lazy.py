"""Checkpoints and task vectors that are never in memory as a whole: an entry is read when it is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint, check_finite, fingerprint, read_checkpoint
from pipeline.checkpoints.sources import locate

#: While a file is open, every page of it that was read counts as this process's memory; to open it takes 0.25 ms.
_MOST = 1 << 23


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of .safetensors files by name; of what was read, no more than `_MOST` bytes and one tensor stay."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the names.

        Raises:
            ValueError: a file is truncated, or of another format.
        """
        self._files: dict[str, Path] = {}
        self._open: dict[Path, safe_open] = {}
        self._mapped = 0
        for path in files:
            try:
                with safe_open(path, "pt") as file:
                    self._files |= dict.fromkeys(file.keys(), path)
            except SafetensorError as error:
                raise ValueError(f"{path}: truncated or not a safetensors file ({error}); fetch it again") from error

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor, on the CPU in the file's type."""
        path = self._files[name]
        if self._mapped > _MOST:
            self._open, self._mapped = {}, 0
        if path not in self._open:
            self._open[path] = safe_open(path, "pt")
        tensor: Tensor = self._open[path].get_tensor(name)  # type: ignore[no-untyped-call]
        self._mapped += tensor.nbytes
        return tensor

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor; Mapping's own way would read it."""
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        """Names, in the files' order."""
        return iter(self._files)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._files)


class Difference(Mapping[str, Tensor]):
    """A task vector: the expert's weights minus the base's, in float32, taken anew each time that an entry is read."""

    def __init__(self, base: Mapping[str, Tensor], expert: Mapping[str, Tensor]) -> None:
        """Of the names of `base`; the expert has them all, in the same shapes."""
        self._base, self._expert = base, expert

    def __getitem__(self, name: str) -> Tensor:
        """The entry, float32, new each time."""
        return self._expert[name].float() - self._base[name].float()

    def __contains__(self, name: object) -> bool:
        """Whether the base has it."""
        return name in self._base

    def __iter__(self) -> Iterator[str]:
        """Names, in the base's order."""
        return iter(self._base)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._base)


def open_checkpoint(source: str) -> Checkpoint:
    """As `checkpoints.read_checkpoint`, but the tensors of .safetensors files stay on the disk until they are read.

    Raises:
        ValueError: as there.
    """
    files = locate(source)
    if any(file.suffix != ".safetensors" for file in files):
        return read_checkpoint(source)
    state = StoredTensors(files)
    if not state:
        raise ValueError(f"{source}: holds no tensors")
    check_finite(source, state)
    return Checkpoint(source, state, fingerprint(state))
