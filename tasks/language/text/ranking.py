"""Rank classification: the choice with the largest log-likelihood is the answer (Tam et al., 2024; Yadav et al., 2023).

Shape legend: B samples, K choices.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tasks.base import NonFiniteOutput
from tasks.language.margins import wrong_minus_right
from tasks.language.text.backbone import LanguageBackbone, has_encoder
from tasks.language.text.causal_choices import CausalChoices
from tasks.language.text.encoding import Encoded
from tasks.language.text.seq2seq_choices import Seq2SeqChoices
from tasks.language.text.task import BatchScores


class Choices(Protocol):
    """The choices of a batch, laid out for one kind of model."""

    @property
    def tokens(self) -> int:
        """The number of tokens that the model reads, before its decoder if any; padding included."""
        ...

    def log_likelihoods(self, backbone: LanguageBackbone) -> tuple[Tensor, Tensor]:
        """Return the sum of each choice's log-probabilities, float32 (B, K), and the numbers of its tokens (B, K)."""
        ...


class ChoiceBatch:
    """A `Batch` of examples with choices."""

    def __init__(self, samples: Sequence[Encoded], backbone: LanguageBackbone, normalised: bool) -> None:
        """Lay out the samples.

        Args:
            samples: of the batch.
            backbone: that will score them.
            normalised: divide a choice's log-likelihood by the number of its tokens.
        """
        pad = int(backbone.tokenizer.pad_token_id or 0)
        self._choices: Choices = (Seq2SeqChoices if has_encoder(backbone) else CausalChoices)(samples, pad)
        self._labels_B = torch.tensor([sample.label for sample in samples])
        self._normalised = normalised

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._labels_B)

    @property
    def tokens(self) -> int:
        """The number of tokens that the model reads, before its decoder if any; padding included."""
        return self._choices.tokens

    @torch.inference_mode()
    def score(self, backbone: LanguageBackbone) -> BatchScores:
        """Rank the choices; of equal ones the first wins.

        Raises:
            NonFiniteOutput: if a log-likelihood is NaN or infinite.
        """
        self._labels_B = self._labels_B.to(backbone.device)
        sums_BK, tokens_BK = self._choices.log_likelihoods(backbone)
        if self._normalised:
            sums_BK = sums_BK / tokens_BK.clamp(min=1)
        finite = sums_BK.isfinite().all()
        sums_BK = sums_BK.masked_fill(tokens_BK == 0, -torch.inf)
        right_B = sums_BK.argmax(dim=1) == self._labels_B
        margins_B = wrong_minus_right(sums_BK, self._labels_B)
        if not finite:
            raise NonFiniteOutput("non-finite log-likelihoods (NaN or infinity)")
        return BatchScores(right_B.cpu().numpy(), margins_B.cpu().numpy())
