"""A text task: samples in fixed batches, so that no shard changes a batch.

Samples are sorted by length and cut into batches once, from the whole split. A shard scores each batch that it touches
in full and keeps its own samples, so a score has the same bits for every shard size.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tasks.base import Backbone, NonFiniteOutput, ShardResult
from tasks.language.text.backbone import LanguageBackbone, as_language
from tasks.rows import check_rows, find_rows
from tasks.stats import Stats
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


class TextTask:
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
        self.name, self.fingerprint, self.metric, self.training = name, fingerprint, metric, training
        self._batches = {split: list(some) for split, some in batches.items()}
        self._sizes = dict(sizes or {})

    def sizes(self, split: str) -> Sequence[int]:
        """Return the size of each sample: see `tasks.base.Sized`."""
        return self._sizes.get(split, ())

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split; 0 if the task lacks it."""
        if split == "train" and self.training is not None:
            return len(self.training.lengths)
        return sum(map(len, self._batches.get(split, ())))

    @property
    def tokens(self) -> int:
        """The number of tokens of both splits that the model reads, before its decoder if any; padding included."""
        return sum(batch.tokens for batches in self._batches.values() for batch in batches)

    def evaluate(self, backbone: Backbone, split: str, start: int, stop: int) -> ShardResult:
        """Score samples start to stop - 1, in the order of their lengths.

        Raises:
            NonFiniteOutput: if a score is NaN or infinite.
            ValueError: if the range is not within the split, or the backbone is no language model.
        """
        if not 0 <= start < stop <= self.num_samples(split):
            raise ValueError(
                f"{self.name}: {split}[{start}:{stop}] is not within its {self.num_samples(split)} samples"
            )
        return self._score(backbone, split, range(start, stop), f"{split}[{start}:{stop}]")

    def together(self, split: str) -> int:
        """Return the size of a batch: see `tasks.base.ScoresRows`."""
        return len(self._batches[split][0])

    def evaluate_rows(self, backbone: Backbone, split: str, rows: Sequence[int]) -> ShardResult:
        """Score some samples in this order; each batch that holds one is scored in full, so all bits stay.

        Raises:
            NonFiniteOutput: if a score is NaN or infinite.
            ValueError: if a row is not in the split, or the backbone is no language model.
        """
        check_rows(self.name, split, rows, self.num_samples(split))
        return self._score(backbone, split, rows, f"{len(rows)} rows of {split}")

    def _score(self, backbone: Backbone, split: str, rows: Sequence[int], where: str) -> ShardResult:
        model = as_language(backbone)
        batches, places_B = find_rows(rows, self.together(split))
        try:
            scores = [self._batches[split][batch].score(model) for batch in batches]
        except NonFiniteOutput as error:
            raise NonFiniteOutput(f"{self.name}: {where}: {error}") from error
        outcomes = np.concatenate([s.outcomes for s in scores])[places_B]
        margins = [s.margins for s in scores if s.margins is not None]
        values = outcomes.astype(np.float64)
        stats = Stats(len(outcomes), float(values.sum()), float((values * values).sum()))
        return ShardResult(stats, outcomes, np.concatenate(margins)[places_B] if margins else None)


def by_length(samples: Iterable[_S], lengths: Sequence[int], size: int) -> list[list[_S]]:
    """Cut samples, sorted by length, into groups of `size`; equal lengths stay in order.

    Example:
        >>> by_length("abc", [2, 1, 2], 2)
        [['b', 'a'], ['c']]
    """
    samples = list(samples)
    ordered = [samples[i] for i in sorted(range(len(samples)), key=lengths.__getitem__)]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
