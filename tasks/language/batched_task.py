"""What tasks of fixed batches share: shards, and any rows, without a change of a batch.

Shape legend: B samples that are scored.
"""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from tasks.base import Backbone, NonFiniteOutput, ShardResult
from tasks.rows import check_rows, find_rows
from tasks.stats import Stats
from tasks.training import TrainingSamples

_Batch = TypeVar("_Batch", bound=Sized)
#: Outcomes of a batch, and its margins if the task has some.
Scores = tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]


class BatchedTask(Generic[_Batch]):
    """The shards of a task whose samples were cut into batches once; a score has the same bits for every shard size.

    Attributes:
        name: of the task.
        training: the training split, if it was loaded.
    """

    def __init__(self, name: str, batches: Mapping[str, Sequence[_Batch]], training: TrainingSamples | None) -> None:
        """Take the batches of each split; all but the last of a split have the same size."""
        self.name, self.training = name, training
        self._batches = {split: list(some) for split, some in batches.items()}

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split; 0 if the task lacks it."""
        if split == "train" and self.training is not None:
            return len(self.training.lengths)
        return sum(map(len, self._batches.get(split, ())))

    def evaluate(self, backbone: Backbone, split: str, start: int, stop: int) -> ShardResult:
        """Score samples start to stop - 1, in the order of their lengths.

        Raises:
            NonFiniteOutput: if a score is NaN or infinite.
            ValueError: if the range is not within the split, or the backbone is of another kind.
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
            ValueError: if a row is not in the split, or the backbone is of another kind.
        """
        check_rows(self.name, split, rows, self.num_samples(split))
        return self._score(backbone, split, rows, f"{len(rows)} rows of {split}")

    def _score(self, backbone: Backbone, split: str, rows: Sequence[int], where: str) -> ShardResult:
        batches, places_B = find_rows(rows, self.together(split))
        try:
            scores = [self._score_batch(backbone, self._batches[split][batch]) for batch in batches]
        except NonFiniteOutput as error:
            raise NonFiniteOutput(f"{self.name}: {where}: {error}") from error
        outcomes = np.concatenate([of_batch for of_batch, _ in scores])[places_B]
        margins = [of_batch for _, of_batch in scores if of_batch is not None]
        values = outcomes.astype(np.float64)
        stats = Stats(len(outcomes), float(values.sum()), float((values * values).sum()))
        return ShardResult(stats, outcomes, np.concatenate(margins)[places_B] if margins else None)

    def _score_batch(self, backbone: Backbone, batch: _Batch) -> Scores:
        """Return the outcomes and margins of a batch, each (samples of the batch,)."""
        raise NotImplementedError
