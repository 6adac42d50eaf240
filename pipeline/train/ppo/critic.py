"""The critic of PPO: a model that estimates, at every token, the reward that is still to come."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PretrainedConfig,
)
from transformers.pytorch_utils import Conv1D

from pipeline.train.ppo.models import seed_everything
from pipeline.train.ppo.spec import Lora
from tasks.language.models import model_folder

_WIDTH, _BLOCKS, _HEADS = 128, 2, 4


def _small(sft: str, config: PretrainedConfig, lora: Lora) -> Any:
    """Return a Llama of two blocks over the policy's vocabulary: 1 % of a step's cost; all its weights learn."""
    fields: Any = dict(
        vocab_size=config.vocab_size,
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=_BLOCKS,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=config.max_position_embeddings,
        num_labels=1,
        pad_token_id=0,
    )
    return LlamaForSequenceClassification(LlamaConfig(**fields))  # type: ignore[no-untyped-call]


def _policy(sft: str, config: PretrainedConfig, lora: Lora) -> Any:
    """Return the SFT model in the policy's dtype, with its own factors and a head that learn, in float32."""
    folder, dtype = model_folder(sft), config.dtype or torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise ValueError(f"training.critic: policy: {config.model_type} has no `score` head for trl; use small")
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    alpha: Any = lora.alpha  # declared as int, but used as a float
    turned = any(isinstance(part, Conv1D) for part in model.modules())
    factors = LoraConfig(
        r=lora.r, lora_alpha=alpha, target_modules=targets, exclude_modules=["score"], fan_in_fan_out=turned
    )
    inject_adapter_in_model(factors, model)
    model.score.register_forward_pre_hook(lambda score, states: states[0].to(score.weight.dtype))
    for name, parameter in model.named_parameters():
        learns = ".lora_" in name or name.startswith("score.")
        parameter.requires_grad_(learns)
        if learns:
            parameter.data = parameter.data.float()
    return model


CRITICS: Mapping[str, Callable[[str, PretrainedConfig, Lora], Any]] = {"small": _small, "policy": _policy}


def make_critic(kind: str, sft: str, config: PretrainedConfig, lora: Lora, seed: int) -> nn.Module:
    """Return a critic that estimates 0 everywhere, so that an untrained one does not mislead the policy.

    Args:
        kind: a name in CRITICS.
        sft: the SFT model's folder.
        config: of the policy.
        lora: factors, for the kind "policy".
        seed: of the initial weights.

    Raises:
        ValueError: if this kind of model has no such critic.
    """
    seed_everything("critic", seed)
    model = CRITICS[kind](sft, config, lora)
    nn.init.zeros_(model.score.weight)
    assert isinstance(model, nn.Module)
    return model
