"""The images of each step, which follow only from the seed and the step.

Shape legend: B images of a batch, N training images.
"""

import torch
from torch import Tensor

from pipeline.train.finetune.spec import FinetuneSettings
from pipeline.train.seeds import generator_of


class EpochBatches:
    """Batches of epochs, each in a new order; the last images, which do not fill a batch, are left out."""

    def __init__(self, count: int, settings: FinetuneSettings) -> None:
        """Plan the training on `count` images.

        Attributes:
            size: B.
            total: steps in all.
        """
        self.size = min(settings.batch_size, count)
        self._count, self._an_epoch, self._seed = count, count // self.size, settings.seed
        self.total = settings.steps or (settings.epochs or 0) * self._an_epoch
        self._epoch, self._order_N = -1, torch.empty(0)

    def rows(self, step: int) -> Tensor:
        """Return the indices (B,) of the images of a step, int64."""
        epoch, part = divmod(step, self._an_epoch)
        if epoch != self._epoch:
            self._order_N = torch.randperm(self._count, generator=generator_of("order", self._seed, epoch))
            self._epoch = epoch
        return self._order_N[part * self.size : (part + 1) * self.size]
