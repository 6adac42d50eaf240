"""What a task of texts gives to fine-tuning: samples with a loss that has gradients.

Shape legend: B samples of a batch.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from tasks.base import Backbone, Task


class TrainingSamples(Protocol):
    """The training split of a task."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each sample: batches of similar lengths need little padding."""
        ...

    @property
    def targets(self) -> Sequence[int]:
        """Number of each sample's tokens or classes to learn, over which `loss` takes the mean."""
        ...

    @property
    def classifier(self) -> nn.Module | None:
        """A model around the backbone's module whose head is trained with it; None if all that is trained is there."""
        ...

    def loss(self, backbone: Backbone, rows: Sequence[int], smoothing: float) -> Tensor:
        """Return the mean cross-entropy of B samples under the backbone's current weights, with gradients.

        Args:
            backbone: its module is in training mode.
            rows: the samples, each at least 0 and less than `len(lengths)`.
            smoothing: share of the target that is spread over all classes or tokens.
        """
        ...


@runtime_checkable
class TextsToLearn(Task, Protocol):
    """A task that can be trained on."""

    training: TrainingSamples | None
    """None if the task was not loaded for training."""
