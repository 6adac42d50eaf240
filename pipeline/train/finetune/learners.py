"""What a step of training minimises: cross-entropy over images or over texts, under given weights.

Shape legend: B samples of a batch, C, H, W an image's channels, height and width, D embedding dimension.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pipeline.train.finetune.augment import AUGMENTATIONS
from pipeline.train.finetune.spec import FinetuneSettings
from pipeline.train.seeds import generator_of
from tasks.base import Backbone
from tasks.training import TrainingSamples
from tasks.vision.backbones import image_backbone
from tasks.vision.classification import ZeroShotClassification

#: Reduces the precision of what is computed in its block, if the spec asks for it.
Autocast = Callable[[], AbstractContextManager[Any]]


class Learner(Protocol):
    """The training samples of one model."""

    @property
    def module(self) -> nn.Module:
        """The module that is put into training mode: the backbone's, or a classifier around it."""
        ...

    @property
    def lengths(self) -> Sequence[int] | None:
        """Tokens of each sample; None if all have the same size."""
        ...

    def parts(self, rows_B: Tensor) -> Iterable[tuple[Tensor, float]]:
        """Cut a batch into the parts that go through the model together, each with its share of the batch's loss."""
        ...

    def loss(self, rows_B: Tensor, weights: Mapping[str, Tensor] | None, step: int) -> Tensor:
        """Return the mean loss of a batch or of a part of it.

        Args:
            rows_B: indices of the samples.
            weights: by the names of the backbone's module, in place of its own.
            step: of the training, for random changes of samples.
        """
        ...


class ImageLearner:
    """Images through the tower, and its frozen zero-shot head in float32."""

    lengths = None

    def __init__(
        self, backbone: Backbone, task: ZeroShotClassification, settings: FinetuneSettings, autocast: Autocast
    ) -> None:
        """Take a task that was loaded with its training images."""
        self._encoder, self._task, self._settings = image_backbone(backbone), task, settings
        self._autocast, self.module = autocast, backbone.module

    def parts(self, rows_B: Tensor) -> Iterable[tuple[Tensor, float]]:
        """Return the whole batch."""
        return [(rows_B, 1.0)]

    def loss(self, rows_B: Tensor, weights: Mapping[str, Tensor] | None, step: int) -> Tensor:
        """Return the mean cross-entropy of the changed images."""
        settings = self._settings
        images_BCHW, labels_B = self._task.batch("train", rows_B, self._encoder.device)
        changed = AUGMENTATIONS[settings.augment](images_BCHW, generator_of("augment", settings.seed, step))
        with self._autocast():
            features_BD = self._encoder.embed(changed, weights)
        return F.cross_entropy(self._task.logits(features_BD), labels_B, label_smoothing=settings.label_smoothing)


class TextLearner:
    """Texts through a language model: the task has the loss."""

    def __init__(
        self, backbone: Backbone, samples: TrainingSamples, settings: FinetuneSettings, autocast: Autocast
    ) -> None:
        """Take the training split of a task."""
        self._backbone, self._samples, self._settings, self._autocast = backbone, samples, settings, autocast
        self.module, self.lengths = samples.classifier or backbone.module, samples.lengths

    def parts(self, rows_B: Tensor) -> Iterable[tuple[Tensor, float]]:
        """Cut a batch by `forward_size`; shares are those of the tokens to learn."""
        targets_B = torch.tensor([self._samples.targets[row] for row in rows_B.tolist()])
        size = self._settings.forward_size or len(rows_B)
        for rows, targets in zip(torch.split(rows_B, size), torch.split(targets_B, size), strict=True):
            yield rows, float(targets.sum() / targets_B.sum())

    def loss(self, rows_B: Tensor, weights: Mapping[str, Tensor] | None, step: int) -> Tensor:
        """Return the mean cross-entropy over all tokens or classes to learn."""
        rows, smoothing = rows_B.tolist(), self._settings.label_smoothing

        def compute() -> Tensor:
            with self._autocast():
                return self._samples.loss(self._backbone, rows, smoothing)

        return compute() if weights is None else _under(self._backbone.module, weights, compute)


class _Around(nn.Module):
    """Computes something that uses a module, so that `functional_call` can exchange the module's weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, compute: Callable[[], Tensor]) -> Tensor:
        return compute()


def _under(module: nn.Module, weights: Mapping[str, Tensor], compute: Callable[[], Tensor]) -> Tensor:
    """Return `compute()` while `module` has other weights."""
    named = {f"module.{name}": weight for name, weight in weights.items()}
    found: Tensor = functional_call(_Around(module), named, (compute,))
    return found
