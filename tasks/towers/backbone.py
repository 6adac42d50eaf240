"""The family `vision`: an image tower without a text tower, and frozen heads that are fitted to its features.

Shape legend: B images of a batch, N training images, C, H, W channels, height and width, D embedding dimension.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tasks.batch_norm import statistics
from tasks.files.cache import cache_root, cached, digest
from tasks.lora import WeightPart
from tasks.towers.of_timm import PREFIX, timm_tower
from tasks.towers.preprocessing import preprocess_of
from tasks.towers.tower import Tower, layer_map
from tasks.vision.clip.backbone import exact
from tasks.vision.decoded import ImageSet, Progress
from tasks.vision.fitted_heads import fit_head
from tasks.vision.heads import Head, HeadKind
from tasks.vision.preprocess import Preprocess

#: Part of every head's key: raised when a head would be fitted in another way.
_FORMAT = "1"
#: Images of a pass when a head is fitted; a part of its bits, so no option.
_BATCH = 128


class VisionBackbone:
    """An image tower on a device, and its preprocessing.

    Attributes:
        library: that computes the tower.
        inputs: content hash of its configuration and preprocessing.
        companions: files that an edited tower needs beside its weights and configuration.
    """

    family = "vision"

    def __init__(self, tower: Tower, preprocess: Preprocess, dtype: torch.dtype) -> None:
        """Take a tower that holds the base; use `build` to make a backbone from weights.

        Raises:
            ValueError: if the tower has no numbered residual blocks.
        """
        self._tower, self.library, self.preprocess, self.dtype = tower, tower.library, preprocess, dtype
        self.module: nn.Module = tower.module.requires_grad_(False).train(False)
        self.device = next(self.module.parameters()).device
        self.layer_map = layer_map(name for name, _ in self.module.named_parameters())
        self.inputs = digest([tower.library, tower.identity, repr(preprocess)])
        self.companions = tower.companions
        self._base: str | None = None

    def select(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Select and check the tower's tensors of a checkpoint; heads are left out."""
        return self._tower.select(state, source)

    def weight_parts(self, modules: Iterable[str], source: str) -> Mapping[str, WeightPart]:
        """Find the weights that a LoRA adapter changes: one parameter a module."""
        return self._tower.weight_parts(modules, source)

    @torch.inference_mode()
    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Return L2-normalised features of uint8 images: float32 (B, D) on the backbone's device."""
        return self.embed(images_BCHW)

    def embed(self, images_BCHW: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Encode with gradients, under `parameters` (by the module's names) in place of its own if given."""
        images = images_BCHW.to(self.device, non_blocking=True)
        return self._features(self.module, self.preprocess.normalise(images, self.dtype), parameters or {})

    def _features(self, module: nn.Module, pixels_BCHW: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        with exact(pixels_BCHW.device):
            output = functional_call(module, dict(parameters), (pixels_BCHW,), dict(self._tower.arguments))
        return F.normalize(self._tower.features(output).float(), dim=-1)

    def fitted_head(self, images: ImageSet, classes: int, kind: HeadKind, progress: Progress | None) -> Head:
        """Return the head of training images, from the cache or else fitted to this backbone's features.

        Features are computed in float32 on the CPU, so that workers on all devices have the same head. The module must
        hold the base when the first head is asked for, and whenever one is fitted.
        """
        self._base = self._base or self._weights()

        def write(path: Path) -> None:
            assert self._base == self._weights(), "heads are fitted to the base"
            weight_KD, bias_K = fit_head(self._all_features(images, progress), images.labels_N, classes, kind)
            save_file({"head": weight_KD, "bias": bias_K}, path)

        inputs = [_FORMAT, self.inputs, self._base, kind, str(classes), images.fingerprint]
        path = cached(cache_root() / "heads" / f"{digest(inputs)}.safetensors", write)
        found = load_file(path)
        # The content too: a machine that fits it again, with other instructions, may get other last bits.
        key = digest(["fitted", _bytes(found["head"]), _bytes(found["bias"])])
        return Head(found["head"], key, bias_K=found["bias"])

    def _weights(self) -> str:
        """Hash the weights and statistics that the module now has."""
        tensors = (*self.module.parameters(), *statistics(self.module).values())
        return digest(part for tensor in tensors for part in (str(tuple(tensor.shape)), _bytes(tensor)))

    @torch.inference_mode()
    def _all_features(self, images: ImageSet, progress: Progress | None) -> Tensor:
        """Return the features of all images, (N, D), of a copy of the module in float32 on the CPU."""
        module = copy.deepcopy(self.module).to("cpu", torch.float32)
        parts = []
        for start in range(0, len(images), _BATCH):
            some = images.slice(start, min(start + _BATCH, len(images)))
            with _about_size(self.preprocess.size):
                parts.append(self._features(module, self.preprocess.normalise(some, torch.float32), {}))
            if progress:
                progress(min(start + _BATCH, len(images)), len(images))
        return torch.cat(parts)


@contextmanager
def _about_size(size: tuple[int, int]) -> Iterator[None]:
    """Name the field if the images are smaller than a patch, or than a kernel of a later stage."""
    try:
        yield
    except RuntimeError as error:
        if "Kernel size can't be greater" not in str(error):
            raise
        raise ValueError(
            f"backbone.options.image_size: images of {size[0]} x {size[1]} pixels are smaller than a patch or kernel "
            f"of the tower: give a larger one ({error})"
        ) from error


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def build(
    model: str,
    state: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    options: Mapping[str, Any] | None = None,
) -> VisionBackbone:
    """Build the tower with the base's weights.

    Args:
        model: a folder of an image model of transformers, its URL, `hf:OWNER/REPO`, `embedded/NAME`; or `timm/NAME`.
        state: the base, with or without a classifier's head, which is left out.
        device: of the tower.
        dtype: of its weights and activations; features and logits are float32.
        options: `image_size`, pixels of both sides, by default the model's; `preprocess`: mean, std, interpolation,
            resize_mode and fill_color; for transformers also `pooling` (cls, or mean) and `attention`.

    Raises:
        ValueError: if the model or an option is unknown, or the weights do not fit.
    """
    options = options or {}
    try:
        if model.startswith(PREFIX):
            tower = timm_tower(model, state, device, dtype, options)
        else:
            from tasks.towers.of_transformers import transformers_tower  # takes seconds

            tower = transformers_tower(model, state, device, dtype, options)
        return VisionBackbone(tower, preprocess_of(model, tower.preprocess, options), dtype)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(("backbone.", "base:")) else f"backbone.model: {text}") from error
