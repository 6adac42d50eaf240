"""What text tasks need of a language model.

Shape legend: B samples, T tokens of a prompt, D hidden size.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tasks.base import Backbone
from tasks.kept_outputs import KeptOutputs


@runtime_checkable
class LanguageBackbone(Backbone, Protocol):
    """A language model of transformers with its tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    context: int | None
    """The largest number of input tokens; None if there is no limit."""


def as_language(backbone: Backbone) -> LanguageBackbone:
    """Return a backbone that completes texts.

    Raises:
        ValueError: if it does not.
    """
    if not isinstance(backbone, LanguageBackbone) or backbone.family == "encoder":
        raise ValueError(
            f"backbone.family: {backbone.family} completes no texts, which this task needs; use causal or seq2seq"
        )
    return backbone


def has_encoder(backbone: LanguageBackbone) -> bool:
    """Return whether the model has an encoder for the prompt and a decoder for the rest."""
    module: Any = backbone.module
    return bool(module.config.is_encoder_decoder)


def encoded(backbone: LanguageBackbone, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the encoder's output, (B, T, D), computed now or for an earlier candidate; it must not be written to.

    Args:
        backbone: a model with an encoder.
        tokens_BT: the same tensor each time, on the model's device: a kept output is found by it.
        mask_BT: 1 for tokens, 0 for padding.
    """

    def compute() -> Tensor:
        module: Any = backbone.module
        output: Tensor = module.get_encoder()(input_ids=tokens_BT, attention_mask=mask_BT).last_hidden_state
        return output

    kept = getattr(backbone, "encoder_outputs", None)
    return kept.of(tokens_BT, compute) if isinstance(kept, KeptOutputs) else compute()
