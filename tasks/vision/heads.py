"""Frozen heads, and zero-shot ones: classifiers made from a text tower's embeddings of class names in templates.

Shape legend: K classes, T templates, L tokens of a prompt, D embedding dimension.
"""

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from tasks.files.cache import cache_root, cached, digest

#: How a head is fitted to features of training images: see `tasks.vision.fitted_heads.fit_head`.
HeadKind: TypeAlias = Literal["ridge", "class_means"]

_BATCH = 256
#: Cut prompts that a warning names.
_NAMED = 3


class TextTower(Protocol):
    """The base model's text side, which fine-tuning leaves unchanged."""

    fingerprint: str
    """Content hash of its weights, its architecture and the logit scale."""
    logit_scale: float
    """exp of the learned temperature."""

    def tokenize(self, prompts: Sequence[str], longer: int = 0) -> Tensor:
        """Return token ids of shape (len(prompts), L + longer); longer prompts are cut, shorter ones padded."""
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
        cut: prompts that the text tower did not read to their end.
        bias_K: float32, added to the logits; None for 0.
    """

    weights_KD: Tensor
    key: str
    cut: Sequence[str] = ()
    bias_K: Tensor | None = None

    def warnings(self) -> list[str]:
        """Return what a user should know of the prompts."""
        if not self.cut:
            return []
        names = ", ".join(map(repr, self.cut[:_NAMED])) + ", ..." * (len(self.cut) > _NAMED)
        return [f"{len(self.cut)} prompts are cut, because the text tower reads no more of them: {names}"]


class SamePrompts(ValueError):
    """Two classes that no text tower can tell apart."""


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

    Raises:
        SamePrompts: if two classes of different names have the same tokens in every template.
    """
    # str.replace rather than str.format, since class names may hold braces.
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    tokens_NL = text.tokenize(prompts)
    cut = _cut(text, prompts, tokens_NL)
    _check_distinct(class_names, tokens_NL, cut)
    shape = f"{len(class_names)} {len(templates)} {tokens_NL.shape[1]}"
    key = digest([text.fingerprint, shape, tokens_NL.to(torch.int64).numpy().tobytes()])

    def write(path: Path) -> None:
        save_file({"head": _compute(text, tokens_NL, len(class_names))}, path)

    path = cached(cache_root() / "heads" / f"{key}.safetensors", write)
    return Head(load_file(path)["head"], key, cut)


def _cut(text: TextTower, prompts: Sequence[str], tokens_NL: Tensor) -> list[str]:
    """Return the prompts that have more tokens than the text tower reads."""
    padding = text.tokenize([""])[0, -1]
    full = [prompts[i] for i in (tokens_NL[:, -1] != padding).nonzero().flatten().tolist()]
    if not full:
        return []
    ends = text.tokenize(full, longer=1)[:, -1] != padding
    return [prompt for prompt, beyond in zip(full, ends.tolist(), strict=True) if beyond]


def _check_distinct(class_names: Sequence[str], tokens_NL: Tensor, cut: Sequence[str]) -> None:
    """Refuse classes that differ in name, but not in tokens: the first would win every image of the second.

    Classes of the same name are the source's choice: ImageNet's list has two.
    """
    seen: dict[bytes, str] = {}
    rows = tokens_NL.to(torch.int64).view(len(class_names), -1).numpy()
    for name, tokens in zip(class_names, rows, strict=True):
        if (other := seen.setdefault(tokens.tobytes(), name)) != name:
            why = _same_text(other, name) or (
                f"they are cut after {tokens_NL.shape[1]} tokens" if cut else "the tokenizer lacks their characters"
            )
            raise SamePrompts(
                f"the classes {other!r} and {name!r} have the same tokens in every prompt, because {why}: give them "
                "different names, for a folder by class_names"
            )


def _same_text(a: str, b: str) -> str:
    """Return why a tokenizer reads two different names as the same; empty if their texts differ."""
    steps = {
        "they differ in Unicode form only": lambda name: unicodedata.normalize("NFKC", name),
        "they differ in HTML entities only": lambda name: html.unescape(html.unescape(name)),
        "they differ in spaces only": lambda name: " ".join(name.split()),
        "they differ in case only": str.casefold,
    }
    for why, step in steps.items():
        a, b = step(a), step(b)
        if a == b:
            return why
    return ""


@torch.inference_mode()
def _compute(text: TextTower, tokens_NL: Tensor, num_classes: int) -> Tensor:
    """Return the mean of the templates' normalised embeddings, normalised, times the logit scale: float32 (K, D)."""
    embeddings_ND = torch.cat([text.encode(part) for part in torch.split(tokens_NL, _BATCH)])
    mean_KD = embeddings_ND.view(num_classes, -1, embeddings_ND.shape[-1]).mean(dim=1)
    return (F.normalize(mean_KD, dim=-1) * text.logit_scale).contiguous()
