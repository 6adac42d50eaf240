"""open_clip's image preprocessing in two halves: resizing to uint8 once an image, then normalisation on the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, Normalize, ToTensor

Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The fields of open_clip's preprocess_cfg.

    Attributes:
        size: (height, width) in pixels.
        mean: per channel, of values in [0, 1].
        std: per channel.
        interpolation: bicubic or bilinear.
        resize_mode: shortest (then centre crop), longest (then pad) or squash.
        fill_color: of padding.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill_color: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Preprocess":
        """Read open_clip's dictionary; its size may be one number."""
        values = {name: config[name] for name in cls.__dataclass_fields__ if name in config}
        size = values.pop("size")
        height, width = (size, size) if isinstance(size, int) else size
        mean, std = tuple(values.pop("mean")), tuple(values.pop("std"))
        return cls(size=(height, width), mean=mean, std=std, **values)

    @property
    def resize_key(self) -> str:
        """Key of the decoded images, without mean and std, which are applied on the device."""
        height, width = self.size
        return f"{height}x{width}-{self.interpolation}-{self.resize_mode}-{self.fill_color}"

    def resizer(self) -> Callable[[Image.Image], Pixels]:
        """Return open_clip's transform without its last two steps: PIL image -> uint8 of shape (3, H, W).

        PIL resizes 8-bit images to 8 bits, so stopping here loses nothing.
        """
        whole = image_transform(
            self.size,
            is_train=False,
            mean=self.mean,
            std=self.std,
            resize_mode=self.resize_mode,
            interpolation=self.interpolation,
            fill_color=self.fill_color,
        )
        *steps, to_tensor, normalize = whole.transforms
        assert isinstance(to_tensor, ToTensor) and isinstance(normalize, Normalize)
        resize = Compose(steps)
        return lambda image: np.ascontiguousarray(np.asarray(resize(image)).transpose(2, 0, 1))

    def normalise(self, images_BCHW: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn uint8 images into inputs: in float32, in ToTensor's and Normalize's order of operations, then cast."""
        device = images_BCHW.device
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return images_BCHW.float().div_(255).sub_(mean).div_(std).to(dtype)
