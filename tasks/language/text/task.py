"""A text task: samples in fixed batches, so that no shard changes a batch.

Samples are sorted by length and cut into batches once, from the whole split. A shard scores each batch that it touches
in full and keeps its own samples, so a score has the same bits for every shard size.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tasks.base import Backbone
from tasks.language.batched_task import BatchedTask, Scores
from tasks.language.text.backbone import LanguageBackbone, as_language
from tasks.training import TrainingSamples

_S = TypeVar("_S")


@dataclass(frozen=True, slots=True)
class BatchScores:
    """The scores of a batch of B samples.

    Attributes:
        outcomes: (B,) bool, or float32.
        margins: (B,) float32: see `tasks.base.ShardResult`.
    """

    outcomes: npt.NDArray[np.bool_] | npt.NDArray[np.float32]
    margins: npt.NDArray[np.float32] | None = None


class Batch(Protocol):
    """Samples that go through the model together."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    @property
    def tokens(self) -> int:
        """The number of tokens that the model reads, before its decoder if any; padding included."""
        ...

    def score(self, backbone: LanguageBackbone) -> BatchScores:
        """Score the samples under the current weights.

        Raises:
            NonFiniteOutput: if a score is NaN or infinite.
        """
        ...


class TextTask(BatchedTask[Batch]):
    """A `Task` of batches.

    Attributes:
        name: of the task.
        fingerprint: content hash of the texts, and of how they are scored.
        training: the training split, if it was loaded.
        metric: accuracy, or bits_per_byte.
    """

    def __init__(
        self,
        name: str,
        batches: Mapping[str, Sequence[Batch]],
        fingerprint: str,
        metric: str = "accuracy",
        sizes: Mapping[str, Sequence[int]] | None = None,
        training: TrainingSamples | None = None,
    ) -> None:
        """Take the batches of each split; all but the last of a split have the same size.

        Args:
            name: see above.
            batches: of each split.
            fingerprint: see above.
            metric: see above.
            sizes: of the samples of each split, in the order of the batches, if the metric is a ratio.
            training: see above.
        """
        super().__init__(name, batches, training)
        self.fingerprint, self.metric = fingerprint, metric
        self._sizes = dict(sizes or {})

    def sizes(self, split: str) -> Sequence[int]:
        """Return the size of each sample: see `tasks.base.Sized`."""
        return self._sizes.get(split, ())

    @property
    def tokens(self) -> int:
        """The number of tokens of both splits that the model reads, before its decoder if any; padding included."""
        return sum(batch.tokens for batches in self._batches.values() for batch in batches)

    def _score_batch(self, backbone: Backbone, batch: Batch) -> Scores:
        found = batch.score(as_language(backbone))
        return found.outcomes, found.margins


def by_length(samples: Iterable[_S], lengths: Sequence[int], size: int) -> list[list[_S]]:
    """Cut samples, sorted by length, into groups of `size`; equal lengths stay in order.

    Example:
        >>> by_length("abc", [2, 1, 2], 2)
        [['b', 'a'], ['c']]
    """
    samples = list(samples)
    ordered = [samples[i] for i in sorted(range(len(samples)), key=lengths.__getitem__)]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
