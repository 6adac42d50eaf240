"""Causal language models of transformers with a list of blocks of one class."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.language.backbone import LanguageBackbone, Loading, about_model, empty_model, with_weights
from tasks.language.blocks import layer_map
from tasks.language.models import check_end, read_tokenizer


class CausalBackbone(LanguageBackbone):
    """A causal language model on a device, and its tokenizer."""

    family = "causal"

    def __init__(self, model: str, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take a loaded module; use `build` to make a backbone from weights.

        Args:
            model: source of its configuration and tokenizer, for errors.
            module: on its device, in its dtype.
            tokenizer: with an end-of-sequence token; to complete prompts, see also `check_completes`.

        Raises:
            ValueError: if the module has no list of residual blocks.
        """
        super().__init__(model, module, tokenizer, layer_map(module))


def build(
    model: str,
    state: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    options: Mapping[str, Any] | None = None,
) -> CausalBackbone:
    """Build the model with the SFT model's weights, copied from `state`.

    Args:
        model: source of config.json and tokenizer (see `model_folder`).
        state: the SFT model, with or without the prefix of the whole model.
        device: of the model.
        dtype: of its weights and activations; the angles of rotary positions stay float32.
        options: `trust_remote_code: true` runs the code in the model's folder; `attention` is one of transformers'
            implementations (sdpa, eager, flash_attention_2, ...); `vocabulary: shared` accepts experts with other
            numbers of tokens.

    Raises:
        ValueError: if the model is not a causal language model, an option is unknown, the tokenizer has no
            end-of-sequence token, or the weights do not fit.
    """
    loading = Loading.of(options or {})
    with about_model():
        tokenizer = read_tokenizer(model)
        check_end(tokenizer, model)
        tokenizer.padding_side = "left"  # completions start together
        empty = empty_model(model, CausalBackbone.family, loading)
        layer_map(empty)
    module = with_weights(empty, state, device, dtype, loading)
    return CausalBackbone(model, module, tokenizer).loaded(state, loading)
