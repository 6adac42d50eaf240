"""Load models to train: the base for SFT, and the SFT model with the factors of a policy."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
    set_seed,
)
from transformers.pytorch_utils import Conv1D

from pipeline.train.model_folder import CHECKPOINT, RESULT
from pipeline.train.ppo.spec import Lora
from pipeline.train.seeds import seed_of
from tasks.language.models import load_causal, model_folder
from tasks.registry import near

#: Files of a model's folder that decide its output.
_KINDS = (".safetensors", ".json", ".model", ".txt", ".jinja")

_Arguments = TypeVar("_Arguments", bound=TrainingArguments)
_OURS = (RESULT, CHECKPOINT)
#: Kinds of modules that peft gives factors: GPT-2 has the second in place of linear layers.
_ADAPTED = (nn.Linear, Conv1D)


def model_fingerprint(source: str) -> str:
    """Return the content hash of a model's weights, configuration and tokenizer.

    Raises:
        ValueError: as `tasks.language.models.model_folder`.
    """
    whole = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in model_folder(source).iterdir() if p.suffix in _KINDS and p.name not in _OURS):
        with path.open("rb") as file:
            own = hashlib.file_digest(file, "blake2b").hexdigest()
        whole.update(f"{path.name} {own}\n".encode())
    return whole.hexdigest()


def seed_everything(*parts: object) -> None:
    """Seed the generators of Python, numpy and torch, which trainers use, from `parts` alone."""
    set_seed(small_seed(*parts))


def small_seed(*parts: object) -> int:
    """Return a seed like `seed_of`, but of 32 bits, which numpy takes."""
    return seed_of(*parts) % 2**32


def one_device(config: _Arguments) -> _Arguments:
    """Restrict a trainer to one GPU, and return its configuration: with several, each would train on its own batch."""
    config._n_gpu = min(config.n_gpu, 1)
    return config


def load_plain(source: str, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype) -> PreTrainedModel:
    """Load a causal model that samples from its own probabilities: generation settings of its folder are ignored.

    Raises:
        ValueError: as `tasks.language.models.load_causal`.
    """
    model = load_causal(source, dtype)
    tokens: Mapping[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model.generation_config = GenerationConfig(**tokens)  # type: ignore[no-untyped-call]
    return model


def with_factors(model: PreTrainedModel, lora: Lora, base: Path, seed: int) -> PeftModel:
    """Return the model with new LoRA factors in float32, which change nothing yet.

    Args:
        model: wrapped in place.
        lora: their rank, scale, dropout and targets.
        base: the folder that the adapter's configuration names as its base.
        seed: of A.
    """
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # declared as int, but used as a float
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in model.modules()),  # readers of the adapter need it
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base),
    )
    seed_everything("factors", seed)
    wrapped = get_peft_model(model, config)
    assert isinstance(wrapped, PeftModel)
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    return wrapped


def check_targets(config: PretrainedConfig, field: str, lora: Lora) -> None:
    """Check that every target is the end of a module's name.

    Raises:
        ValueError: if one is not; the message has `field` and near names.
    """
    if isinstance(lora.targets, str):
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    ends = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, _ADAPTED)}
    names = [name for name, _ in model.named_modules()]
    for target in lora.targets:
        if not any(f".{name}".endswith(f".{target}") for name in names):
            raise ValueError(f"{field}.targets: the model has no module {target!r}; {near(target, sorted(ends))}")


def trained(module: nn.Module, prefix: str = "") -> dict[str, nn.Parameter]:
    """Return every parameter that learns, by `prefix` and its name."""
    return {f"{prefix}{name}": p for name, p in module.named_parameters() if p.requires_grad}
