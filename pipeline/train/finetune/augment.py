"""Random changes of training images, on the images' device; pixels stay in [0, 255].

Shape legend: B images, C, H, W channels, height and width.
"""

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Augment(Protocol):
    """A random change of each image."""

    def __call__(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Change uint8 images to uint8 or float32 images of the same shape; `generator` is on the CPU."""
        ...


def _none(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    return images_BCHW


def _jitter(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 8 degrees, stretch each side by up to 15 %, move by up to 1/16 of a side; edges are repeated.

    The embedded experts were trained with it.
    """
    angle, wide, high, right, down = (torch.rand(5, len(images_BCHW), generator=generator) * 2 - 1).unbind()
    cos, sin = torch.cos(angle * math.radians(8)), torch.sin(angle * math.radians(8))
    wide, high = 1 + 0.15 * wide, 1 + 0.15 * high
    return _sampled(images_BCHW, [[cos * wide, -sin * high, right / 8], [sin * wide, cos * high, down / 8]])


def _crop(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Crop to 90 to 100 % of the area and an aspect ratio of 3/4 to 4/3, and resize: open_clip's training transform.

    The crop is cut from the decoded image; a side that would be longer than the image is cut to its length.
    """
    area, ratio, right, down = torch.rand(4, len(images_BCHW), generator=generator).unbind()
    ratio = torch.exp((ratio * 2 - 1) * math.log(4 / 3))
    area = 0.9 + 0.1 * area
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    zero = torch.zeros_like(wide)
    right, down = (right * 2 - 1) * (1 - wide), (down * 2 - 1) * (1 - high)
    return _sampled(images_BCHW, [[wide, zero, right], [zero, high, down]])


def _sampled(images_BCHW: Tensor, rows: list[list[Tensor]]) -> Tensor:
    """Sample each image bilinearly through its own affine map."""
    theta_B23 = torch.stack([torch.stack(row) for row in rows]).permute(2, 0, 1).to(images_BCHW.device)
    grid = F.affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW.float(), grid, padding_mode="border", align_corners=False)


#: The names are those of `Training.augment`.
AUGMENTATIONS: Mapping[str, Augment] = {"none": _none, "jitter": _jitter, "crop": _crop}
