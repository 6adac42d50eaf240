"""Log-likelihoods of choices under a causal model, in one forward pass a batch.

Rows are padded on the right, where a causal model's padding changes nothing before it. Choices whose tokens so far are
the beginning of another row are read from that row: one row serves all choices of one token.

Shape legend: B samples, K choices (the most of a sample), L tokens (the most of a choice), R rows, T their tokens, P
positions with logits, N scored tokens, V vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.language.text.backbone import LanguageBackbone
from tasks.language.text.encoding import Encoded, Tokens, padded


class CausalChoices:
    """The tensors of a batch; they move to the device when it is first scored, and stay there."""

    def __init__(self, samples: Sequence[Encoded], pad: int) -> None:
        """Lay out the rows of a batch.

        Args:
            samples: of the batch.
            pad: the pad token.
        """
        rows: list[Tokens] = []
        places: list[tuple[int, int, int]] = []
        widths: list[list[int]] = []
        for sample in samples:
            own, of_choice = shared_rows(sample)
            start = len(sample.prompt) - 1
            for choice, row in zip(sample.choices, of_choice, strict=True):
                places += [(len(rows) + row, start + i, token) for i, token in enumerate(choice)]
            rows += own
            widths.append([len(choice) for choice in sample.choices])
        row_N, position_N, token_N = (torch.tensor(part) for part in zip(*places, strict=True))
        first, last = int(position_N.min()), int(position_N.max())
        self._kept_P = torch.arange(first, last + 1)
        self._tokens_RT = torch.tensor(padded(rows, pad))
        self._row_N, self._position_N, self._token_N = row_N, position_N - first, token_N
        self._mask_BKL = token_mask(widths)

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows, padding included."""
        return self._tokens_RT.numel()

    def log_likelihoods(self, backbone: LanguageBackbone) -> tuple[Tensor, Tensor]:
        """Return the sum of each choice's log-probabilities, float32 (B, K), and the numbers of its tokens (B, K)."""
        return summed(token_log_probs(*self.token_logits(backbone)), self._mask_BKL)

    def token_logits(self, backbone: LanguageBackbone) -> tuple[Tensor, Tensor]:
        """Return the logits at each scored token, float32 (N, V), and the tokens (N,)."""
        self._to(backbone.device)
        logits_RPV = _logits(backbone.module, self._tokens_RT, self._kept_P)
        return logits_RPV[self._row_N, self._position_N].float(), self._token_N

    def _to(self, device: torch.device) -> None:
        if self._row_N.device != device:
            for name, tensor in list(vars(self).items()):
                setattr(self, name, tensor.to(device))


def shared_rows(sample: Encoded) -> tuple[list[Tokens], list[int]]:
    """Return the rows that a sample needs, and the row of each choice: no row is the beginning of another.

    Example:
        >>> shared_rows(Encoded((1, 2), ((3,), (4, 5), (6,)), 0))
        ([(1, 2, 4)], [0, 0, 0])
    """
    inputs = [sample.prompt + choice[:-1] for choice in sample.choices]
    rows: list[Tokens] = []
    for tokens in sorted(inputs, key=len, reverse=True):
        if not any(row[: len(tokens)] == tokens for row in rows):
            rows.append(tokens)
    return rows, [next(i for i, row in enumerate(rows) if row[: len(t)] == t) for t in inputs]


def token_mask(widths: Sequence[Sequence[int]]) -> Tensor:
    """Return bool (B, K, L): which of the padded places hold a token, from the numbers of tokens of each choice."""
    places, longest = max(map(len, widths)), max(map(max, widths))
    count_BK = torch.tensor([[*row, *[0] * (places - len(row))] for row in widths])
    return torch.arange(longest) < count_BK[:, :, None]


def token_log_probs(logits_NV: Tensor, token_N: Tensor) -> Tensor:
    """Return the log-probability of each token, (N,)."""
    return logits_NV.gather(1, token_N[:, None])[:, 0] - logits_NV.logsumexp(dim=1)


def summed(log_probs_N: Tensor, mask_BKL: Tensor) -> tuple[Tensor, Tensor]:
    """Add the log-probabilities of each choice: float32 (B, K), and the numbers of tokens (B, K).

    The sum runs over a padded dimension, since adding by index has no fixed order on a GPU.
    """
    values_BKL = torch.zeros(mask_BKL.shape, dtype=torch.float32, device=mask_BKL.device)
    values_BKL[mask_BKL] = log_probs_N
    return values_BKL.sum(dim=2), mask_BKL.sum(dim=2)


def _logits(module: Any, tokens_RT: Tensor, kept_P: Tensor) -> Tensor:
    """Return logits (R, P, V); most models compute those of chosen positions only."""
    if "logits_to_keep" in inspect.signature(module.forward).parameters:
        logits: Tensor = module(input_ids=tokens_RT, use_cache=False, logits_to_keep=kept_P).logits
        return logits
    every: Tensor = module(input_ids=tokens_RT, use_cache=False).logits
    return every[:, kept_P]
