"""Image models without weights, by name: open_clip's image towers, and the models of timm and torchvision."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from tasks.registry import near
from tasks.vision.clip.architectures import create
from tasks.vision.libraries import timm_library, torchvision
from tasks.vision.pixels import eight_bits


@dataclass(frozen=True, slots=True)
class ImageModel:
    """An architecture with its preprocessing for evaluation.

    Attributes:
        module: in evaluation, float32, on the CPU; its weights are random.
        transform: RGB image -> input (3, H, W).
    """

    module: nn.Module
    transform: Callable[[Image.Image], Tensor]

    def input(self, image: Image.Image) -> Tensor:
        """Return the input (3, H, W) of an image of any mode."""
        return self.transform(eight_bits(image).convert("RGB"))


def image_model(name: str) -> ImageModel:
    """Build a model.

    Args:
        name: `timm/NAME`, `torchvision/NAME`, or an architecture of open_clip (see `architectures.create`), whose image
            tower is meant.

    Raises:
        ValueError: if there is none of this name; near names are suggested.
    """
    library, slash, own = name.partition("/")
    if slash and library == "timm":
        timm = timm_library()
        _check(own, timm.list_models(), name)
        module = timm.create_model(own, pretrained=False)
        config = timm.data.config.resolve_data_config({}, model=module)
        return ImageModel(module.eval(), timm.data.transforms_factory.create_transform(**config, is_training=False))
    if slash and library == "torchvision":
        _check(own, torchvision.models.list_models(torchvision.models), name)
        module = torchvision.models.get_model(own, weights=None)
        return ImageModel(module.eval(), torchvision.models.get_model_weights(own).DEFAULT.transforms())
    architecture = create(name, {})
    how = architecture.preprocess
    resize = how.resizer()

    def transform(image: Image.Image) -> Tensor:
        return how.normalise(torch.from_numpy(resize(image)).unsqueeze(0), torch.float32)[0]

    return ImageModel(architecture.model.visual.eval(), transform)


def _check(name: str, known: list[str], text: str) -> None:
    if name not in known:
        raise ValueError(f"no architecture {text!r}; {near(name, known)}")
