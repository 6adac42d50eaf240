"""A task of texts in fixed batches, so that no shard changes a batch.

Texts are sorted by length and cut into batches once, from the whole split. A shard scores each batch that it touches
in full and keeps its own texts, so a score has the same bits for every shard size.

Shape legend: B texts of a batch.
"""

from collections.abc import Mapping, Sequence

from tasks.base import Backbone
from tasks.language.batched_task import BatchedTask, Scores
from tasks.language.sentences.batches import SentenceBatch
from tasks.training import TrainingSamples


class SentenceTask(BatchedTask[SentenceBatch]):
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
        super().__init__(name, batches, training)
        self.fingerprint = fingerprint

    def _score_batch(self, backbone: Backbone, batch: SentenceBatch) -> Scores:
        return batch.score(backbone.device)
