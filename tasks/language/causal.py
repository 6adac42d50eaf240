"""Causal language models of transformers with a list of blocks of one class."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.configuration_utils import PreTrainedConfig

from tasks.language.experts import check_vocabulary
from tasks.language.models import (
    check_config,
    inputs_fingerprint,
    load_tokenizer,
    model_folder,
    read_files,
    without_progress_bars,
)
from tasks.language.tensor_names import TensorNames, layer_map
from tasks.lora import WeightPart
from tasks.registry import check_options


class CausalBackbone:
    """A language model on a device, and its tokenizer. All weights are edited, tied ones once."""

    family = "causal"

    def __init__(self, model: str, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take a loaded module; use `build` to make a backbone from weights.

        Args:
            model: source of its configuration and tokenizer, for errors.
            module: on its device, in its dtype.
            tokenizer: see `load_tokenizer`.

        Raises:
            ValueError: if the module has no list of residual blocks, or no largest number of positions.
        """
        self.model_name, self.tokenizer = model, tokenizer
        self.inputs = inputs_fingerprint(model)
        self.module: nn.Module = module.requires_grad_(False).train(False)
        self.layer_map = layer_map(module)
        self.context = _context(module)
        self.dtype, self.device = module.dtype, module.device
        self._names = TensorNames.of(module)

    def select(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Select the parameters' tensors from a checkpoint of the whole or the bare model: see tensor_names.py."""
        return self._names.select(state, source)

    def weight_parts(self, modules: Iterable[str], source: str) -> Mapping[str, WeightPart]:
        """Find the weights that a LoRA adapter changes: one parameter a module."""
        return self._names.weight_parts(modules, source)

    def check_expert(self, folder: Path, source: str) -> None:
        """Check that a full checkpoint or an adapter with a tokenizer has the SFT model's vocabulary.

        Raises:
            ValueError: if it has another; sizes and the first differing tokens are given.
        """
        check_vocabulary(folder, source, self.model_name, self.tokenizer)


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
            implementations (sdpa, eager, flash_attention_2, ...).

    Raises:
        ValueError: if the model is not a causal language model, an option is unknown, the tokenizer has no pad token,
            or the weights do not fit.
    """
    options = options or {}
    trusted, kwargs = _options(options)
    try:
        tokenizer = load_tokenizer(model)
        config = _config(model, trusted)
        with torch.device("meta"):
            auto: Any = AutoModelForCausalLM  # its functions have no types
            empty = read_files(model, lambda: auto.from_config(config, trust_remote_code=trusted, **kwargs))
        layer_map(empty)
    except ValueError as error:
        raise ValueError(f"backbone.model: {error}") from error
    tensors = TensorNames.of(empty).select(state, "base")
    with without_progress_bars():
        module = type(empty).from_pretrained(None, config=config, state_dict=tensors, dtype=dtype, **kwargs)
    return CausalBackbone(model, _moved(module, device), tokenizer)


def _moved(module: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Move to `device` with copies, since transformers keeps the state dict's own tensors if dtypes agree."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(device, copy=True)
    nn.Module.to(module, device)
    return module


def _options(options: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Return whether the model's code is trusted, and further arguments for transformers.

    Raises:
        ValueError: if an option is unknown or has the wrong type.
    """
    check_options("backbone.options", options, ("trust_remote_code", "attention"))
    trusted, attention = options.get("trust_remote_code", False), options.get("attention")
    if not isinstance(trusted, bool):
        raise ValueError(f"backbone.options.trust_remote_code: must be true or false, got {trusted!r}")
    if attention is not None and not isinstance(attention, str):
        raise ValueError(f"backbone.options.attention: must be a name (sdpa, eager, ...), got {attention!r}")
    return trusted, {} if attention is None else {"attn_implementation": attention}


def _config(model: str, trusted: bool) -> PreTrainedConfig:
    folder = model_folder(model)
    check_config(model, folder)
    config = read_files(model, lambda: AutoConfig.from_pretrained(folder, trust_remote_code=trusted))
    assert isinstance(config, PreTrainedConfig)
    return config


def _context(module: PreTrainedModel) -> int:
    """Return the largest number of positions, which every family's configuration has under this name or an alias."""
    found = getattr(module.config, "max_position_embeddings", None)
    if not isinstance(found, int):
        raise ValueError(f"backbone.model: {type(module).__name__}: its config.json has no max_position_embeddings")
    return found
