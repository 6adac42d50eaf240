"""Measure the memory of a computation by the tensors that it makes."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, as long as they are alive.

    Attributes:
        now: bytes of the tensors that are alive.
        peak: the largest `now` so far.

    Example:
        >>> with LiveBytes() as live:
        ...     _ = torch.empty(1000, device="meta").exp().sum()
        >>> live.peak
        8000
    """

    def __init__(self) -> None:
        """Start from nothing: tensors that exist already do not count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count the memory of its results, unless it is that of its inputs."""
        given = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := _storage(tensor)) not in given:
                self._add(storage)
        return result

    def _add(self, storage: Any) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()
