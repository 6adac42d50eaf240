"""Outputs of an encoder, kept while it has the same weights: all candidates of one alpha share them.

Shape legend: B samples, T tokens of a prompt, D hidden size.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor


class EncoderOutputs:
    """The outputs of an encoder for the batches that it has read, by the weights that it had.

    Entries of the weights that were used longest ago make room for new ones. If the present weights' outputs fill the
    limit alone, further batches are not kept: all of them are read equally often, so that replacing one gains nothing.

    Attributes:
        limit: the most bytes that are kept.
        size: bytes that are kept now.
        weights: identity of the encoder's present weights; None if it is not known, and then nothing is kept or found.
    """

    def __init__(self, limit: int) -> None:
        """Start empty, with unknown weights."""
        self.limit, self.size = limit, 0
        self.weights: Hashable | None = None
        self._kept: OrderedDict[Hashable, dict[Tensor, Tensor]] = OrderedDict()

    def of(self, tokens_BT: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Return the output for a batch, (B, T, D); it must not be written to.

        Args:
            tokens_BT: of the batch, on the encoder's device. It is kept, and found by identity: a tensor that is equal
                counts as another batch.
            compute: computes the output.
        """
        if self.weights is None:
            return compute()
        # A tensor's hash is its identity, and a dictionary compares by `==` only where hashes are equal.
        own = self._kept.setdefault(self.weights, {})
        self._kept.move_to_end(self.weights)
        if (found := own.get(tokens_BT)) is not None:
            return found
        made = compute()
        if self._make_room(made.nbytes):
            own[tokens_BT] = made
            self.size += made.nbytes
        return made

    def _make_room(self, size: int) -> bool:
        """Drop outputs of other weights as far as needed; return whether `size` bytes more may be kept."""
        while self.size + size > self.limit and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self.size -= sum(output.nbytes for output in oldest.values())
        return self.size + size <= self.limit
