"""Tiny CLIP models of open_clip with random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import OpenClipBackbone, build

CPU = torch.device("cpu")
VISION = {"image_size": 16, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
TEXT = {"context_length": 7, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


def config(folder: Path, quick_gelu: bool = False, vision: dict[str, Any] | None = None) -> str:
    """Write an architecture of a ViT, or of another tower, and return its path."""
    path = folder / "model.json"
    values = {"embed_dim": 16, "vision_cfg": vision or VISION, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    path.write_text(json.dumps(values | {"preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.2, 0.1]}}))
    return str(path)


def random_state(model: str, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {k: v.clone() for k, v in create(model, {}).model.state_dict().items()}


def built(model: str, state: dict[str, Tensor], **options: Any) -> OpenClipBackbone:
    return build(model, state, CPU, torch.float32, options)
