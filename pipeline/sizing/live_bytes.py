"""The memory of a forward pass, measured on the meta device, whose tensors have shapes but no values."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
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


class WithoutPairs(TorchFunctionMode):
    """Computes attention without its matrix of all pairs of tokens, as the fused kernels of real devices do.

    Conditions on values, which the meta device lacks, are false: transformers asks whether a batch has no padding, and
    tasks ask whether logits are finite, after the model's pass.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function; of attention return only memory of the result's shape."""
        if func in (Tensor.__bool__, Tensor.item) and args[0].is_meta and args[0].dtype == torch.bool:
            return False
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
def peak_bytes(compute: Callable[[], object]) -> int | None:
    """Return the most bytes that the tensors of a computation on the meta device take at once; None if not known.

    The computation ends where it needs a value, such as the outcomes on the CPU. What follows the model's forward pass
    is small; if it ends before, the bytes are not known.
    """
    with LiveBytes() as live, WithoutPairs():
        try:
            compute()
        except (RuntimeError, TypeError, ValueError):
            if not live.peak:
                return None
    most: int = live.peak
    return most
