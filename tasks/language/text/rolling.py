"""Bits of whole documents under a causal model, in rolling windows.

Each token is scored once, after as many of the tokens before it as the window holds. The first window begins with the
beginning-of-sequence token, which is not scored. Windows are those of lm-evaluation-harness
(`lm_eval.utils.get_rolling_token_windows`): `stride` is its max_seq_len - context_len + 1.

Shape legend: W windows of a forward pass, T tokens of the longest, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.base import NonFiniteOutput
from tasks.language.text.backbone import LanguageBackbone
from tasks.language.text.causal_choices import token_log_probs
from tasks.language.text.encoding import Tokens, padded
from tasks.language.text.task import BatchScores


@dataclass(frozen=True, slots=True)
class Windows:
    """How a document is cut.

    Attributes:
        longest: tokens that the model reads at once.
        stride: tokens that are scored in each window but the first, at most `longest`.
    """

    longest: int
    stride: int

    def of(self, count: int) -> Iterator[tuple[int, int, int]]:
        """Yield (start, stop, new): a window reads tokens start to stop - 1 and predicts the `new` ones up to `stop`.

        Tokens are counted with the beginning-of-sequence token as number 0.

        Args:
            count: tokens to score.

        Example:
            >>> list(Windows(longest=4, stride=2).of(7))
            [(0, 4, 4), (2, 6, 2), (3, 7, 1)]
        """
        stop = min(self.longest, count)
        if stop:
            yield 0, stop, stop
        while stop < count:
            new = min(self.stride, count - stop)
            stop += new
            yield stop - self.longest, stop, new

    def cut(self, tokens: Tokens) -> Iterator[tuple[Tokens, Tokens]]:
        """Yield the tokens that each window reads, and the new ones that it predicts, of a document."""
        for start, stop, new in self.of(len(tokens) - 1):
            yield tokens[start:stop], tokens[stop - new + 1 : stop + 1]


class DocumentBatch:
    """A `Batch` of documents; its longest windows go through the model first."""

    def __init__(self, documents: Sequence[Tokens], windows: Windows, rows: int, unit: float) -> None:
        """Cut the documents.

        Args:
            documents: tokens of each, with the beginning-of-sequence token in front.
            windows: how they are cut.
            rows: windows a forward pass.
            unit: bytes that bits are divided by.
        """
        cut = [(i, *window) for i, tokens in enumerate(documents) for window in windows.cut(tokens)]
        cut.sort(key=lambda window: -len(window[1]))
        self._passes = [cut[start : start + rows] for start in range(0, len(cut), rows)]
        self._count, self._unit = len(documents), unit

    def __len__(self) -> int:
        """Return the number of documents."""
        return self._count

    @property
    def tokens(self) -> int:
        """The number of tokens that the model reads, padding included."""
        return sum(len(some) * len(some[0][1]) for some in self._passes)

    @torch.inference_mode()
    def score(self, backbone: LanguageBackbone) -> BatchScores:
        """Return the bits of each document, in units of the mean document's bytes.

        Raises:
            NonFiniteOutput: if a log-likelihood is NaN or infinite.
        """
        nats = np.zeros(self._count)
        for windows in self._passes:
            for (document, _, _), value in zip(windows, _log_likelihoods(backbone, windows), strict=True):
                nats[document] -= value
        if not np.isfinite(nats).all():
            raise NonFiniteOutput("non-finite log-likelihoods (NaN or infinity)")
        return BatchScores((nats / math.log(2) / self._unit).astype(np.float32))


def _log_likelihoods(backbone: LanguageBackbone, windows: Sequence[tuple[int, Tokens, Tokens]]) -> list[float]:
    """Return the sum of the log-probabilities of each window's new tokens, added up in float64.

    Rows are padded on the right, where padding changes nothing before it.
    """
    module: Any = backbone.module
    inputs_WT = torch.tensor(padded([inputs for _, inputs, _ in windows], int(backbone.tokenizer.pad_token_id or 0)))
    logits_WTV: Tensor = module(input_ids=inputs_WT.to(backbone.device), use_cache=False).logits
    found = []
    for logits_TV, (_, inputs, new) in zip(logits_WTV, windows, strict=True):
        own_NV = logits_TV[len(inputs) - len(new) : len(inputs)].float()
        found.append(token_log_probs(own_NV, torch.tensor(new, device=own_NV.device)).cpu())
    return [float(log_probs_N.double().sum()) for log_probs_N in found]
