"""What text tasks need of a language model."""

from typing import Any, Protocol, runtime_checkable

from transformers import PreTrainedTokenizerBase

from tasks.base import Backbone


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
