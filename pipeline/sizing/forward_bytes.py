"""The memory of a forward pass, measured on the meta device, whose tensors have shapes but no values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pipeline.learning.live_bytes import LiveBytes


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
