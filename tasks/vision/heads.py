"""Zero-shot text heads: the frozen classifier that a text tower makes of class names and templates.

Shape legend: K classes, T templates, L tokens of a prompt, D embedding dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from tasks.files.cache import cache_root, cached, digest

_BATCH = 256


class TextTower(Protocol):
    """The base model's text side; fine-tuning leaves it as it is."""

    fingerprint: str
    """Content hash of its weights, its architecture and the logit scale."""
    logit_scale: float
    """exp of the learned temperature."""

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids of shape (len(prompts), L)."""
        ...

    def encode(self, tokens_BL: Tensor) -> Tensor:
        """L2-normalised embeddings, float32 on the CPU, of shape (B, D)."""
        ...


@dataclass(frozen=True)
class Head:
    """A frozen classifier.

    Attributes:
        weights_KD: float32; logits are normalised image features times its transpose.
        key: content hash of all that it was computed from.
    """

    weights_KD: Tensor
    key: str


def check_templates(where: str, templates: Sequence[str]) -> None:
    """Every template must take one class name.

    Raises:
        ValueError: there is none, or one does not hold {} exactly once.
    """
    if not templates:
        raise ValueError(f"{where}.templates: must hold at least one, such as 'a photo of a {{}}.'")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"{where}.templates: each must hold {{}} exactly once, got {template!r}")


def text_head(text: TextTower, class_names: Sequence[str], templates: Sequence[str]) -> Head:
    """The head of `class_names`, from the cache or from the text tower.

    The key is made of the token ids, not of the strings, so it covers class names, templates and tokenizer at once.
    """
    # str.replace, for a class name may hold braces of its own, which str.format would read.
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    tokens_NL = text.tokenize(prompts)
    shape = f"{len(class_names)} {len(templates)} {tokens_NL.shape[1]}"
    key = digest([text.fingerprint, shape, tokens_NL.to(torch.int64).numpy().tobytes()])

    def write(path: Path) -> None:
        save_file({"head": _compute(text, tokens_NL, len(class_names))}, path)

    path = cached(cache_root() / "heads" / f"{key}.safetensors", write)
    return Head(load_file(path)["head"], key)


@torch.inference_mode()
def _compute(text: TextTower, tokens_NL: Tensor, num_classes: int) -> Tensor:
    """Mean of the templates' normalised embeddings, normalised again, times the logit scale: (K, D) in float32."""
    embeddings_ND = torch.cat([text.encode(part) for part in torch.split(tokens_NL, _BATCH)])
    mean_KD = embeddings_ND.view(num_classes, -1, embeddings_ND.shape[-1]).mean(dim=1)
    return (F.normalize(mean_KD, dim=-1) * text.logit_scale).contiguous()
