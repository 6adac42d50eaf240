"""Log-likelihoods of choices under an encoder-decoder: one encoder pass a prompt, one decoder row a choice.

Shape legend: B samples, K choices (the most of a sample), L tokens (the most of a choice), R rows (one a choice), T
tokens of a prompt, N scored tokens, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from tasks.language.text.backbone import LanguageBackbone, encoded
from tasks.language.text.causal_choices import summed, token_log_probs, token_mask
from tasks.language.text.encoding import Encoded, padded


class Seq2SeqChoices:
    """The tensors of a batch; they move to the device when it is first scored, and stay there."""

    def __init__(self, samples: Sequence[Encoded], pad: int) -> None:
        """Lay out the rows of a batch.

        Args:
            samples: of the batch.
            pad: the pad token.
        """
        choices = [(number, c) for number, sample in enumerate(samples) for c in sample.choices if c]
        self._sample_R = torch.tensor([number for number, _ in choices])
        self._labels_RL = torch.tensor(padded([tokens for _, tokens in choices], pad))
        self._tokens_BT = torch.tensor(padded([sample.prompt for sample in samples], pad))
        lengths_B = torch.tensor([len(sample.prompt) for sample in samples])
        self._mask_BT = (torch.arange(self._tokens_BT.shape[1]) < lengths_B[:, None]).long()
        self._mask_BKL = token_mask([[len(c) for c in sample.choices] for sample in samples])
        lengths_R = torch.tensor([len(tokens) for _, tokens in choices])
        self._mask_RL = torch.arange(self._labels_RL.shape[1]) < lengths_R[:, None]

    @property
    def tokens(self) -> int:
        """The number of tokens that the encoder reads, padding included."""
        return self._tokens_BT.numel()

    def log_likelihoods(self, backbone: LanguageBackbone) -> tuple[Tensor, Tensor]:
        """Return the sum of each choice's log-probabilities, float32 (B, K), and the numbers of its tokens (B, K)."""
        return summed(token_log_probs(*self.token_logits(backbone)), self._mask_BKL)

    def token_logits(self, backbone: LanguageBackbone) -> tuple[Tensor, Tensor]:
        """Return the logits at each scored token, float32 (N, V), and the tokens (N,)."""
        self._to(backbone.device)
        module: Any = backbone.module
        hidden_BTD = encoded(backbone, self._tokens_BT, self._mask_BT)
        # Starts as in training: the start token, then the choice without its last token.
        start_R1 = self._labels_RL.new_full((len(self._labels_RL), 1), module.config.decoder_start_token_id)
        logits_RLV = module(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden_BTD[self._sample_R]),
            attention_mask=self._mask_BT[self._sample_R],
            decoder_input_ids=torch.cat([start_R1, self._labels_RL[:, :-1]], dim=1),
            use_cache=False,
        ).logits
        return logits_RLV[self._mask_RL].float(), self._labels_RL[self._mask_RL]

    def _to(self, device: torch.device) -> None:
        if self._sample_R.device != device:
            for name, tensor in list(vars(self).items()):
                setattr(self, name, tensor.to(device))
