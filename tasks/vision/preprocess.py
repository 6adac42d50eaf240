"""open_clip's image preprocessing in two halves: resizing to uint8 once an image, then normalisation on the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tasks.vision.libraries import open_clip, torchvision
from tasks.vision.pixels import eight_bits, upright

Pixels: TypeAlias = npt.NDArray[np.uint8]

#: Of a resized image before its centre is cut out; Pillow's own bound on images that it opens.
_MOST_PIXELS = 2**30 // 6


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The fields of open_clip's preprocess_cfg, and how images are turned.

    Attributes:
        size: (height, width) in pixels.
        mean: per channel, of values in [0, 1].
        std: per channel.
        interpolation: bicubic or bilinear.
        resize_mode: shortest (then centre crop), longest (then pad) or squash.
        fill_color: of padding.
        exif_orientation: whether images are turned upright as their EXIF data state; open_clip does not. It is no part
            of the representation, which identifies a backbone.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill_color: int = 0
    exif_orientation: bool = field(default=False, repr=False)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Preprocess":
        """Read open_clip's dictionary; its size may be one number."""
        values = {name: config[name] for name in cls.__dataclass_fields__ if name in config}
        values.pop("exif_orientation", None)
        size = values.pop("size")
        height, width = (size, size) if isinstance(size, int) else size
        mean, std = tuple(values.pop("mean")), tuple(values.pop("std"))
        return cls(size=(height, width), mean=mean, std=std, **values)

    @property
    def resize_key(self) -> str:
        """Key of the decoded images, without mean and std, which are applied on the device."""
        height, width = self.size
        turned = "-exif" * self.exif_orientation
        return f"{height}x{width}-{self.interpolation}-{self.resize_mode}-{self.fill_color}{turned}"

    def resizer(self) -> Callable[[Image.Image], Pixels]:
        """Return open_clip's transform without its last two steps: PIL image -> uint8 of shape (3, H, W).

        PIL resizes 8-bit images to 8 bits, so stopping here loses nothing. Greyscale of 16 bits becomes 8 bits before,
        which open_clip does not do: it would turn white.

        The function raises ValueError if an image is too long and narrow, or the value of its white is unknown.
        """
        transforms = torchvision.transforms
        whole = open_clip.image_transform(
            self.size,
            is_train=False,
            mean=self.mean,
            std=self.std,
            resize_mode=self.resize_mode,
            interpolation=self.interpolation,
            fill_color=self.fill_color,
        )
        *steps, to_tensor, normalize = whole.transforms
        assert isinstance(to_tensor, transforms.ToTensor) and isinstance(normalize, transforms.Normalize)
        resize = transforms.Compose(steps)

        def pixels(image: Image.Image) -> Pixels:
            self._check_sides(*image.size)
            turned = upright(image) if self.exif_orientation else image
            return np.ascontiguousarray(np.asarray(resize(eight_bits(turned))).transpose(2, 0, 1))

        return pixels

    def _check_sides(self, width: int, height: int) -> None:
        """Refuse an image that would fill the memory when its shorter side is resized."""
        ratio = max(width, height) / max(1, min(width, height))
        if self.resize_mode == "shortest" and ratio * max(self.size) ** 2 > _MOST_PIXELS:
            raise ValueError(f"its sides of {width} and {height} pixels differ too much: cut it to a part")

    def normalise(self, images_BCHW: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn uint8 images into inputs: in float32, in ToTensor's and Normalize's order of operations, then cast."""
        device = images_BCHW.device
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return images_BCHW.float().div_(255).sub_(mean).div_(std).to(dtype)
