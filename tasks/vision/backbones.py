"""What classification needs of a backbone besides `tasks.base.Backbone`.

Shape legend: B images, C, H, W channels, height and width, D embedding dimension.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tasks.vision.decoded import ImageSet, Progress
from tasks.vision.heads import Head, HeadKind
from tasks.vision.preprocess import Preprocess


@runtime_checkable
class ImageBackbone(Protocol):
    """What classification needs of a backbone besides `Backbone`, and a way to make heads: one of the two below."""

    preprocess: Preprocess
    device: torch.device

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Return float32 features (B, D) of uint8 images; L2-normalised for image-text models."""
        ...

    def embed(self, images_BCHW: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Encode with gradients, under `parameters` (by the module's names) in place of its own if given."""
        ...


@runtime_checkable
class NamesClasses(Protocol):
    """An `ImageBackbone` that makes heads of class names, by a text tower or a head of its own."""

    def head(self, class_names: Sequence[str], templates: Sequence[str]) -> Head:
        """Return the classifier of a task's classes."""
        ...


@runtime_checkable
class FitsHeads(Protocol):
    """An `ImageBackbone` whose heads are fitted to its features of training images; it must hold the base."""

    def fitted_head(self, images: ImageSet, classes: int, kind: HeadKind, progress: Progress | None) -> Head:
        """Return the classifier of the images' labels, 0 to `classes` - 1, from the cache or else fitted."""
        ...


@runtime_checkable
class ReusesBatches(Protocol):
    """An `ImageBackbone` that reuses what it has computed of a batch; a plug-in need not be one."""

    def encode_batch(self, images_BCHW: Tensor, batch: Hashable) -> Tensor:
        """Encode with the bits of `encode`; equal `batch` means the same images in the same order."""
        ...


def image_backbone(backbone: object) -> ImageBackbone:
    """Return `backbone` typed as an encoder of images, which makes heads of class names or of training images.

    Raises:
        ValueError: if it is not one.
    """
    if not (isinstance(backbone, ImageBackbone) and isinstance(backbone, NamesClasses | FitsHeads)):
        raise ValueError(
            f"backbone: {type(backbone).__name__} does not encode images and classes; classification needs both"
        )
    return backbone
