"""Encoder-decoders of transformers, such as T5 and BART: two stacks of blocks, of which one or both are scaled."""

from collections.abc import Hashable, Mapping
from typing import Any, cast, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.files.cache import digest
from tasks.kept_outputs import KEPT, KeptOutputs, encoder_memory
from tasks.language.backbone import LanguageBackbone, Loading, about_model, empty_model, with_weights
from tasks.language.blocks import Scaled, encoder_decoder_map
from tasks.language.models import check_rows, read_tokenizer
from tasks.registry import near


class Seq2SeqBackbone(LanguageBackbone):
    """An encoder-decoder on a device, and its tokenizer.

    Attributes:
        scaled: the stacks that are scaled; the other one is outside the blocks.
        start: token id that the decoder's input begins with.
        encoder_outputs: kept for candidates with the same encoder; nothing is kept if the encoder is scaled.
    """

    family = "seq2seq"

    def __init__(
        self,
        model: str,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scaled: Scaled = "decoder",
        kept: float = KEPT,
    ) -> None:
        """Take a loaded module; use `build` to make a backbone from weights.

        Args:
            model: source of its configuration and tokenizer, for errors.
            module: on its device, in its dtype.
            tokenizer: with pad and end-of-sequence tokens.
            scaled: the stacks to scale.
            kept: GiB of the encoder's outputs that are kept at most.

        Raises:
            ValueError: if a stack has no list of residual blocks, or the configuration names no start token.
        """
        super().__init__(model, module, tokenizer, encoder_decoder_map(module, scaled))
        self.scaled, self.start = scaled, _start(module)
        self.inputs = digest([self.inputs, "scaled", scaled])
        self.encoder_outputs = KeptOutputs(int(kept * 2**30) if self._encoder_is_outside() else 0)

    def _encoder_is_outside(self) -> bool:
        parts: Any = self.module  # get_encoder has no types
        encoder = {id(p) for p in parts.get_encoder().parameters()}
        return all(id(p) not in encoder or n not in self.layer_map.blocks for n, p in self.module.named_parameters())

    def set_outside(self, weights: Hashable | None) -> None:
        """Take the identity of the weights outside the blocks: see `tasks.base.KeepsOutputs`."""
        self.encoder_outputs.weights = weights if self.encoder_outputs.limit else None

    def kept_bytes(self, tokens: int, candidates: int) -> int:
        """Return the most bytes of the encoder's outputs that are kept: see `tasks.base.KeepsOutputs`."""
        parts: Any = self.module
        width: int = parts.get_input_embeddings().embedding_dim
        return min(self.encoder_outputs.limit, tokens * candidates * width * self.dtype.itemsize)


def build(
    model: str,
    state: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    options: Mapping[str, Any] | None = None,
) -> Seq2SeqBackbone:
    """Build the model with the base's weights, copied from `state`.

    Args:
        model: source of config.json and tokenizer (see `model_folder`).
        state: the base, with or without the prefix of the whole model or a wrapper.
        device: of the model.
        dtype: of its weights and activations.
        options: `scaled`: decoder (the default, as in the paper), encoder or both; `encoder_memory`: GiB of the
            encoder's outputs to keep, which changes no score; and those of causal models.

    Raises:
        ValueError: if the model is not an encoder-decoder, an option is unknown, the tokenizer has no pad or
            end-of-sequence token, or the weights do not fit.
    """
    options = options or {}
    loading, scaled = Loading.of(options, ("scaled", "encoder_memory")), _scaled(options.get("scaled", "decoder"))
    kept = encoder_memory(options.get("encoder_memory", KEPT))
    with about_model():
        tokenizer = _tokenizer(model)
        empty = empty_model(model, Seq2SeqBackbone.family, loading)
        check_rows(tokenizer, model, empty)
        encoder_decoder_map(empty, scaled)
        _start(empty)
    module = with_weights(empty, state, device, dtype, loading)
    return Seq2SeqBackbone(model, module, tokenizer, scaled, kept).loaded(state, loading)


def _scaled(value: object) -> Scaled:
    if value not in get_args(Scaled):
        raise ValueError(
            f"backbone.options.scaled: must be decoder, encoder or both, got {value!r}; "
            f"{near(str(value), get_args(Scaled))}"
        )
    return cast(Scaled, value)


def _tokenizer(model: str) -> PreTrainedTokenizerBase:
    tokenizer = read_tokenizer(model)
    for what, token in (("pad", tokenizer.pad_token_id), ("end-of-sequence", tokenizer.eos_token_id)):
        if token is None:
            raise ValueError(f"tokenizer of {model}: has no {what} token: set one, and save the tokenizer with it")
    return tokenizer


def _start(module: PreTrainedModel) -> int:
    found = getattr(module.config, "decoder_start_token_id", None)
    if not isinstance(found, int):
        raise ValueError(
            f"{type(module).__name__}: its config.json has no decoder_start_token_id: add the token that the decoder's "
            "input begins with (0 for T5)"
        )
    return found
