"""The training samples of a task of texts and labels.

Shape legend: B texts of a batch, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Backbone
from tasks.language.sentences.batches import padded_inputs
from tasks.language.sentences.heads import SentenceHead

Tokens = Mapping[str, list[int]]


class SentenceTraining:
    """A task's training split in tokens: see `tasks.training.TrainingSamples`."""

    def __init__(
        self,
        head: SentenceHead,
        tokenizer: Any,
        tokens: Sequence[Tokens],
        labels: Sequence[int],
        classifier: nn.Module | None = None,
    ) -> None:
        """Take texts with labels.

        Args:
            head: that classifies.
            tokenizer: of the encoder.
            tokens: of each text: the model's inputs without padding.
            labels: of each text.
            classifier: the model of the head, if it is trained.
        """
        self._head, self._tokenizer, self._tokens, self._labels = head, tokenizer, tokens, labels
        self.classifier, self.lengths, self.targets = (
            classifier,
            [len(t["input_ids"]) for t in tokens],
            [1] * len(tokens),
        )

    def loss(self, backbone: Backbone, rows: Sequence[int], smoothing: float) -> Tensor:
        """Return the mean cross-entropy over the head's classes of a batch."""
        inputs = padded_inputs(self._tokenizer, [self._tokens[row] for row in rows])
        logits_BK = self._head.logits({name: tensor.to(backbone.device) for name, tensor in inputs.items()})
        labels_B = torch.tensor([self._labels[row] for row in rows], device=backbone.device)
        return F.cross_entropy(logits_BK, labels_B, label_smoothing=smoothing)
