"""Inputs of learning: a backbone whose weights may be overwritten, and the validation images of a task.

Shape legend: B images, K classes, D embedding dimension, C, H, W an image's channels, height and width.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tasks.base import Backbone
from tasks.vision.backbones import image_backbone

#: Hyper-parameters, statistics and coefficients come from this split; test is for chosen candidates.
SPLIT = "val"


class ImageEncoder(Backbone, Protocol):
    """A backbone that embeds images with gradients."""

    def embed(self, images_BCHW: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """L2-normalised features (B, D), under `parameters` instead of the module's own if given."""
        ...


@runtime_checkable
class LabelledImages(Protocol):
    """A task that gives its images with labels, and its frozen head."""

    name: str

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split."""
        ...

    def batch(self, split: str, rows_B: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) and labels (B,)."""
        ...

    def logits(self, features_BD: Tensor) -> Tensor:
        """Return logits (B, K)."""
        ...


def as_encoder(backbone: Backbone) -> ImageEncoder:
    """Return a backbone that embeds images.

    Raises:
        ValueError: if the backbone does not.
    """
    image_backbone(backbone)
    return backbone  # type: ignore[return-value]


def labelled(task: object, name: str) -> LabelledImages:
    """Return the task `name` with its labelled images.

    Raises:
        ValueError: if it has none.
    """
    if not isinstance(task, LabelledImages):
        raise ValueError(
            f"tasks.{name}: {type(task).__name__} gives no labelled images, which this merge method learns from; "
            "use a method without statistics, such as sum"
        )
    return task


def leaves(backbone: Backbone) -> dict[str, Tensor]:
    """Return the module's weights as leaves of a graph, in the same memory, so that `overwrite` reaches them."""
    return {name: p.detach().requires_grad_() for name, p in backbone.module.named_parameters()}


@torch.no_grad()
def overwrite(
    backbone: Backbone, base: Mapping[str, Tensor], parts: Sequence[tuple[Mapping[str, Tensor], Mapping[str, float]]]
) -> None:
    """Write theta0 + sum of coefficient times task vector, in float32, into the module, one tensor at a time.

    Args:
        backbone: that owns the module.
        base: theta0 by parameter name.
        parts: (task vector, coefficient) of each expert, both by parameter name.
    """
    for name, parameter in backbone.module.named_parameters():
        theta = base[name].to(torch.float32, copy=True)
        for delta, coefficients in parts:
            theta.add_(delta[name], alpha=coefficients[name])
        parameter.copy_(theta)
