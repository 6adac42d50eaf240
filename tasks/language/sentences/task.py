"""A task of texts in fixed batches, so that no shard changes a batch.

Texts are sorted by length and cut into batches once, from the whole split. A shard scores each batch that it touches
in full and keeps its own texts, so a score has the same bits for every shard size.

Shape legend: B texts of a batch.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.base import Backbone, NonFiniteOutput, ShardResult
from tasks.language.sentences.batches import SentenceBatch
from tasks.rows import check_rows, find_rows
from tasks.stats import Stats
from tasks.training import TrainingSamples


class SentenceTask:
    """A `Task` of texts and labels, scored by accuracy."""

    metric = "accuracy"

    def __init__(
        self,
        name: str,
        batches: Mapping[str, Sequence[SentenceBatch]],
        fingerprint: str,
        training: TrainingSamples | None = None,
    ) -> None:
        """Take the batches of each split; all but the last of a split have the same size.

        Args:
            name: of the task.
            batches: of each split.
            fingerprint: content hash of texts, labels and head.
            training: the training split, if it was loaded.
        """
        self.name, self.fingerprint, self.training = name, fingerprint, training
        self._batches = {split: list(some) for split, some in batches.items()}

    def num_samples(self, split: str) -> int:
        """Return the number of texts of a split; 0 if the task lacks it."""
        if split == "train" and self.training is not None:
            return len(self.training.lengths)
        return sum(map(len, self._batches.get(split, ())))

    def evaluate(self, backbone: Backbone, split: str, start: int, stop: int) -> ShardResult:
        """Score texts start to stop - 1, in the order of their lengths.

        Raises:
            NonFiniteOutput: if a logit is NaN or infinite.
            ValueError: if the range is not within the split.
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
        """Score some texts in this order; each batch that holds one is scored in full, so all bits stay.

        Raises:
            NonFiniteOutput: if a logit is NaN or infinite.
            ValueError: if a row is not in the split.
        """
        check_rows(self.name, split, rows, self.num_samples(split))
        return self._score(backbone, split, rows, f"{len(rows)} rows of {split}")

    def _score(self, backbone: Backbone, split: str, rows: Sequence[int], where: str) -> ShardResult:
        batches, places_B = find_rows(rows, self.together(split))
        try:
            scores = [self._batches[split][batch].score(backbone.device) for batch in batches]
        except NonFiniteOutput as error:
            raise NonFiniteOutput(f"{self.name}: {where}: {error}") from error
        outcomes, margins = (np.concatenate(parts)[places_B] for parts in zip(*scores, strict=True))
        total = float(outcomes.sum())
        return ShardResult(Stats(len(outcomes), total, total), outcomes, margins)
