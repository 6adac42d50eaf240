"""Batches of texts that go through an encoder and a head together.

Shape legend: B texts, T their tokens, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.base import NonFiniteOutput
from tasks.language.margins import wrong_minus_right
from tasks.language.sentences.heads import SentenceHead


class SentenceBatch:
    """Texts with labels; their tensors move to the device when they are first scored, and stay there."""

    def __init__(
        self, head: SentenceHead, tokenizer: Any, tokens: Sequence[Mapping[str, list[int]]], labels: Sequence[int]
    ) -> None:
        """Pad the texts.

        Args:
            head: that classifies.
            tokenizer: of the encoder.
            tokens: of each text: the model's inputs without padding.
            labels: of each text.
        """
        self._head, self._labels_B = head, torch.tensor(labels)
        self._inputs = padded_inputs(tokenizer, tokens)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._labels_B)

    @torch.inference_mode()
    def score(self, device: torch.device) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Return whether each text's largest logit is its label's (B,), and its margin; of equal logits the first wins.

        Raises:
            NonFiniteOutput: if a logit is NaN or infinite.
        """
        if self._labels_B.device != device:
            self._labels_B = self._labels_B.to(device)
            self._inputs = {name: tensor.to(device) for name, tensor in self._inputs.items()}
        logits_BK = self._head.logits(self._inputs)
        if not bool(logits_BK.isfinite().all()):
            raise NonFiniteOutput("non-finite logits (NaN or infinity)")
        right_B = logits_BK.argmax(dim=1) == self._labels_B
        return right_B.cpu().numpy(), wrong_minus_right(logits_BK, self._labels_B).cpu().numpy()


def padded_inputs(tokenizer: Any, tokens: Sequence[Mapping[str, list[int]]]) -> dict[str, Tensor]:
    """Return the model's inputs (B, T) of texts, padded on the right."""
    padded = tokenizer.pad([dict(t) for t in tokens], padding_side="right", return_tensors="pt")
    return {name: padded[name] for name in padded}
