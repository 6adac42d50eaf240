"""The critic of PPO: it says how much reward is still to come, at every token."""

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
    """Two blocks of a Llama over the policy's vocabulary: 1 % of a step's cost, and all of it learns."""
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
    """The SFT model in the policy's dtype, with factors of its own and a head that learn, in float32."""
    folder, dtype = model_folder(sft), config.dtype or torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise ValueError(f"training.critic: policy: {config.model_type} has no `score` that trl could ask; take small")
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    alpha: Any = lora.alpha  # declared as a whole number, used as any
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
    """A critic that says 0 everywhere at first, so that a cold one misleads no policy.

    Args:
        kind: of CRITICS.
        sft: the SFT model's folder.
        config: of the policy.
        lora: factors, of the kind policy.
        seed: of the first weights.

    Raises:
        ValueError: there is no such critic of this kind of model.
    """
    seed_everything("critic", seed)
    model = CRITICS[kind](sft, config, lora)
    nn.init.zeros_(model.score.weight)
    assert isinstance(model, nn.Module)
    return model
