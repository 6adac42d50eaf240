"""The samples of each step, which follow only from the seed and the step.

Shape legend: B samples of a batch, N training samples, P those of an epoch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.train.finetune.spec import FinetuneSettings
from pipeline.train.seeds import generator_of

#: Batches whose texts are sorted by length together: padding is rare, and batches still differ from epoch to epoch.
_SORTED_TOGETHER = 32


class EpochBatches:
    """Batches of epochs, each in a new order; the last samples, which do not fill a batch, are left out."""

    def __init__(self, count: int, settings: FinetuneSettings, lengths: Sequence[int] | None = None) -> None:
        """Plan the training on `count` samples.

        Args:
            count: N.
            settings: of the training.
            lengths: of texts; those of similar lengths are put into one batch.

        Attributes:
            size: B.
            total: steps in all.
        """
        self.size = min(settings.batch_size, count)
        self._count, self._an_epoch, self._seed = count, count // self.size, settings.seed
        self._lengths_N = None if lengths is None else torch.tensor(lengths)
        self.total = settings.steps or (settings.epochs or 0) * self._an_epoch
        self._epoch, self._order_P = -1, torch.empty(0)

    def rows(self, step: int) -> Tensor:
        """Return the indices (B,) of the samples of a step, int64."""
        epoch, part = divmod(step, self._an_epoch)
        if epoch != self._epoch:
            order_N = torch.randperm(self._count, generator=generator_of("order", self._seed, epoch))
            self._order_P = self._by_length(order_N[: self._an_epoch * self.size], epoch)
            self._epoch = epoch
        return self._order_P[part * self.size : (part + 1) * self.size]

    def _by_length(self, order_P: Tensor, epoch: int) -> Tensor:
        """Sort stretches of several batches by length, and put the batches into a random order again."""
        if self._lengths_N is None:
            return order_P
        stretches = torch.split(order_P, _SORTED_TOGETHER * self.size)
        ordered_P = torch.cat([rows[self._lengths_N[rows].argsort(stable=True)] for rows in stretches])
        places = torch.randperm(self._an_epoch, generator=generator_of("batches", self._seed, epoch))
        return ordered_P.view(self._an_epoch, self.size)[places].flatten()
