"""Outputs of the part of a model that many candidates share, kept while its weights are the same.

Shape legend: B samples, T tokens, D hidden size.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

#: GiB of outputs that a worker keeps, unless the option `encoder_memory` gives another number.
KEPT = 1.0


class KeptOutputs:
    """The outputs of a part of a model for the batches that it has read, by the weights that it had.

    Entries of the weights that were used longest ago make room for new ones. If the present weights' outputs fill the
    limit alone, further batches are not kept: all of them are read equally often, so that replacing one gains nothing.

    Attributes:
        limit: the most bytes that are kept.
        size: bytes that are kept now.
        weights: identity of the part's present weights; None if it is not known, and then nothing is kept or found.
    """

    def __init__(self, limit: int) -> None:
        """Start empty, with unknown weights."""
        self.limit, self.size = limit, 0
        self.weights: Hashable | None = None
        self._kept: OrderedDict[Hashable, dict[Hashable, Tensor]] = OrderedDict()

    def of(self, batch: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """Return the output for a batch, (B, T, D); it must not be written to.

        Args:
            batch: identity of the samples and of their order. A tensor on the model's device is kept and found by its
                own identity: one that is equal counts as another batch.
            compute: computes the output.
        """
        if self.weights is None:
            return compute()
        # A tensor's hash is its identity, and a dictionary compares by `==` only where hashes are equal.
        own = self._kept.setdefault(self.weights, {})
        self._kept.move_to_end(self.weights)
        if (found := own.get(batch)) is not None:
            return found
        made = compute()
        if self._make_room(made.nbytes):
            own[batch] = made
            self.size += made.nbytes
        return made

    def _make_room(self, size: int) -> bool:
        """Drop outputs of other weights as far as needed; return whether `size` bytes more may be kept."""
        while self.size + size > self.limit and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self.size -= sum(output.nbytes for output in oldest.values())
        return self.size + size <= self.limit


def encoder_memory(value: object) -> float:
    """Check the option `encoder_memory`, GiB.

    Raises:
        ValueError: if it is not a number, 0 or more.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"backbone.options.encoder_memory: must be a number of GiB, 0 or more, got {value!r}")
    return value
