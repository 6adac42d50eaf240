"""Answers by greedy generation, scored against references by the metric of SQuAD.

Shape legend: B samples, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from tasks.language.generation import Finite
from tasks.language.text.backbone import LanguageBackbone, encoded, has_encoder
from tasks.language.text.encoding import Tokens
from tasks.language.text.squad import squad_score
from tasks.language.text.task import BatchScores


class AnswerBatch:
    """A `Batch` of prompts with reference answers."""

    def __init__(
        self, prompts: Sequence[Tokens], references: Sequence[Sequence[str]], backbone: LanguageBackbone, longest: int
    ) -> None:
        """Lay out the samples.

        Args:
            prompts: in tokens.
            references: of each prompt.
            backbone: that will answer.
            longest: the most new tokens.
        """
        pad, width = int(backbone.tokenizer.pad_token_id or 0), max(map(len, prompts))
        left = not has_encoder(backbone)  # completions must start together
        gaps = [[pad] * (width - len(tokens)) for tokens in prompts]
        rows = [[*g, *t] if left else [*t, *g] for t, g in zip(prompts, gaps, strict=True)]
        lengths_B1 = torch.tensor([[len(tokens)] for tokens in prompts])
        places_T = torch.arange(width).flip(0) if left else torch.arange(width)
        self._tokens_BT, self._mask_BT = torch.tensor(rows), (places_T < lengths_B1).long()
        self._references, self._longest = references, longest

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._references)

    @property
    def tokens(self) -> int:
        """The number of tokens of the prompts, padding included."""
        return self._tokens_BT.numel()

    @torch.inference_mode()
    def score(self, backbone: LanguageBackbone) -> BatchScores:
        """Answer every prompt, and return the mean of exact match and F1.

        A causal model's answer ends at its first line break, since nothing else ends it.

        Raises:
            NonFiniteOutput: if a logit is NaN or infinite.
        """
        if self._tokens_BT.device != backbone.device:
            self._tokens_BT, self._mask_BT = self._tokens_BT.to(backbone.device), self._mask_BT.to(backbone.device)
        texts = backbone.tokenizer.batch_decode(self._generated(backbone).tolist(), skip_special_tokens=True)
        if not has_encoder(backbone):
            texts = [text.strip().split("\n")[0] for text in texts]
        pairs = zip(texts, self._references, strict=True)
        return BatchScores(np.array([squad_score(text, of) for text, of in pairs], np.float32))

    def _generated(self, backbone: LanguageBackbone) -> Tensor:
        """Return the new tokens, (B, T)."""
        module: Any = backbone.module
        inputs: dict[str, Any] = {"input_ids": self._tokens_BT, "attention_mask": self._mask_BT}
        fields: dict[str, Any] = {
            "eos_token_id": backbone.tokenizer.eos_token_id,
            "pad_token_id": backbone.tokenizer.pad_token_id,
        }
        if apart := has_encoder(backbone):
            fields["decoder_start_token_id"] = module.config.decoder_start_token_id
            inputs["encoder_outputs"] = BaseModelOutput(encoded(backbone, self._tokens_BT, self._mask_BT))
        config: Any = GenerationConfig
        recommended, module.generation_config = module.generation_config, config()
        try:
            how = config(max_new_tokens=self._longest, do_sample=False, use_cache=True, **fields)
            found: Tensor = module.generate(
                **inputs, generation_config=how, logits_processor=LogitsProcessorList([Finite()])
            )
        finally:
            module.generation_config = recommended
        return found if apart else found[:, self._tokens_BT.shape[1] :]
