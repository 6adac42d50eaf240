"""A tiny random DINOv2 in the layout of a published one, and images of three classes."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tasks.towers.backbone import VisionBackbone, build

PREPROCESSING = {
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": {"shortest_edge": 32},
    "do_center_crop": True,
    "crop_size": {"height": 28, "width": 28},
}


def write_tower(folder: Path, seed: int = 0) -> Path:
    """Write a DINOv2 of three blocks for images of 56 pixels; return its folder."""
    from transformers import Dinov2Config, Dinov2Model
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2}
    torch.manual_seed(seed)
    model = Dinov2Model(Dinov2Config(**sizes, image_size=56, patch_size=14, use_mask_token=False))
    with torch.no_grad():
        for parameter in model.parameters():  # features of a fresh model hardly depend on the image
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    return folder


def state(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of a folder."""
    return load_file(folder / "model.safetensors")


def tower(folder: Path, **options: object) -> VisionBackbone:
    """Build the backbone of a folder on the CPU, in float32."""
    return build(str(folder), state(folder), torch.device("cpu"), torch.float32, options)


def write_images(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write noisy images of three colours, by split; return the folder."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for i in range(count):
            pixels = rng.integers(0, 160, (28, 28, 3), dtype=np.uint8)
            pixels[..., i % 3] += rng.integers(0, 90, dtype=np.uint8)
            path = folder / split / ("red", "green", "blue")[i % 3] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder
