"""Zero-shot heads: frozen classifiers made from a text tower's embeddings of class names in templates.

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
    """The base model's text side, which fine-tuning leaves unchanged."""

    fingerprint: str
    """Content hash of its weights, its architecture and the logit scale."""
    logit_scale: float
    """exp of the learned temperature."""

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Return token ids of shape (len(prompts), L)."""
        ...

    def encode(self, tokens_BL: Tensor) -> Tensor:
        """Return L2-normalised embeddings, float32 on the CPU, of shape (B, D)."""
        ...


@dataclass(frozen=True)
class Head:
    """A frozen classifier.

    Attributes:
        weights_KD: float32; logits are normalised image features times the transpose of this.
        key: content hash of all inputs of the computation.
    """

    weights_KD: Tensor
    key: str


def check_templates(where: str, templates: Sequence[str]) -> None:
    """Check that every template takes one class name.

    Raises:
        ValueError: if there is no template, or one does not hold {} exactly once.
    """
    if not templates:
        raise ValueError(f"{where}.templates: must hold at least one, for example 'a photo of a {{}}.', got none")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"{where}.templates: each must hold {{}} exactly once, got {template!r}")


def text_head(text: TextTower, class_names: Sequence[str], templates: Sequence[str]) -> Head:
    """Return the head of `class_names`, from the cache or else from the text tower.

    The key is a hash of the token ids rather than the strings, so it covers class names, templates and tokenizer.
    """
    # str.replace rather than str.format, since class names may hold braces.
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
    """Return the mean of the templates' normalised embeddings, normalised, times the logit scale: float32 (K, D)."""
    embeddings_ND = torch.cat([text.encode(part) for part in torch.split(tokens_NL, _BATCH)])
    mean_KD = embeddings_ND.view(num_classes, -1, embeddings_ND.shape[-1]).mean(dim=1)
    return (F.normalize(mean_KD, dim=-1) * text.logit_scale).contiguous()
