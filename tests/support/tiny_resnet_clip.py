"""A CLIP with a ResNet of 0.2 million parameters, two experts with statistics of their own, and images of two tasks."""

import json
from pathlib import Path
from typing import Any

import torch
from own_models import CONFIG, write_images
from safetensors.torch import save_file
from torch import Tensor

from tasks.batch_norm import is_statistic
from tasks.vision.clip.architectures import create

TASKS = ("colours", "frames")
VAL = 24


def write_models(folder: Path) -> None:
    """Write model.json, base.safetensors and one file for each task; the second has only the tower, with a prefix."""
    tower = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    (folder / "model.json").write_text(json.dumps(CONFIG | {"vision_cfg": tower}))
    torch.manual_seed(0)
    base = {n: t.clone() for n, t in create(str(folder / "model.json"), {}).model.state_dict().items()}
    base |= {n: t * 0.9 + 0.1 * torch.rand_like(t) for n, t in base.items() if is_statistic(n)}
    save_file(base, folder / "base.safetensors")
    save_file(_tuned(base), folder / "colours.safetensors")
    tower_alone = {n.replace("visual.", "module."): t for n, t in _tuned(base).items() if n.startswith("visual.")}
    save_file(tower_alone, folder / "frames.safetensors")


def _tuned(base: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add noise to the image tower; variances stay positive."""
    noisy = {
        n: t + 0.3 * t.abs().mean() * torch.rand_like(t)
        for n, t in base.items()
        if n.startswith("visual.") and t.is_floating_point()
    }
    return base | noisy


def write_all(folder: Path) -> dict[str, Any]:
    """Write models and images, and return a spec of one edit and one merge."""
    write_models(folder)
    for seed, task in enumerate(TASKS):
        write_images(folder / task / "val", task, 8, seed)
        write_images(folder / task / "test", task, 7, seed + len(TASKS))
    return {
        "name": "resnet",
        "backbone": {"family": "open_clip", "model": str(folder / "model.json")},
        "base": str(folder / "base.safetensors"),
        "experts": {task: str(folder / f"{task}.safetensors") for task in TASKS},
        "tasks": {task: str(folder / task) for task in TASKS},
        "arms": {
            "LiNeS": {"edit": "each_expert", "scaling": {"function": "linear", "alpha": 0.3, "beta": 0.5}},
            "half": {"merge": "sum", "scaling": {"alpha": 0.5}},
        },
        "limits": {"val": VAL, "test": 20},
        "resources": {"pool": "local"},
    }
