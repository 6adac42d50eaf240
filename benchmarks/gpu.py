"""Candidates a second for a ViT-B/32 at 224 px on synthetic images, in float32 and bfloat16, against a bare loop.

A candidate is a rebuild of the weights and a pass over the images, which are on the device as uint8. The bare loop
makes the same passes without rebuilds. Random weights cost the same as trained ones. Run: python -m benchmarks.gpu
(--device cpu with few images only tests the script)
"""

import argparse
import itertools
from functools import partial

import open_clip
import torch
from torch import Tensor

from benchmarks.rebuild import median_seconds
from pipeline.merging.resident import ResidentModel
from pipeline.recipe import Recipe
from tasks.vision.clip.backbone import OpenClipBackbone, build

MODEL = "ViT-B-32-quickgelu"
CLASSES, BATCH = 100, 256


def backbone_of(dtype: torch.dtype, device: torch.device) -> OpenClipBackbone:
    """Build a ViT-B/32 with random weights."""
    torch.manual_seed(0)
    return build(MODEL, open_clip.create_model(MODEL).state_dict(), device, dtype)


def resident_of(backbone: OpenClipBackbone) -> ResidentModel:
    """Make a resident model of two random experts."""
    base = {name: p.detach().float().clone() for name, p in backbone.module.named_parameters()}
    deltas = {f"expert {i}": {name: 0.01 * torch.randn_like(t) for name, t in base.items()} for i in range(2)}
    return ResidentModel(backbone.module, backbone.layer_map, base, deltas, backbone.device, backbone.dtype)


@torch.inference_mode()
def score(backbone: OpenClipBackbone, images: Tensor, head: Tensor) -> int:
    """Make one pass over all images."""
    found = [(backbone.encode(part) @ head.T).argmax(1) for part in torch.split(images, BATCH)]
    return int(torch.cat(found).sum())


def measure(dtype: torch.dtype, device: torch.device, count: int, rounds: int) -> None:
    """Print one line for a precision."""
    backbone = backbone_of(dtype, device)
    resident, betas = resident_of(backbone), itertools.count(1)
    images = torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8, device=device)
    passes = partial(score, backbone, images, torch.randn(CLASSES, 512, device=device))

    def rebuilds() -> object:
        return resident.materialise(Recipe.make("sum", "linear", 0.1, 0.01 * next(betas)))

    times = median_seconds(device, rounds, passes, rebuilds, lambda: (rebuilds(), passes()))
    bare, rebuild, whole = (wall for wall, _ in times)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{name}, {dtype}: {1 / whole:.3f} candidates/s over {count} images ({count / whole:.0f} images/s); "
        f"{whole / bare:.3f} times the bare loop; a rebuild takes {1000 * rebuild:.1f} ms"
    )


def main() -> None:
    """Print one line a precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=20_000, help="about the 8 tasks' validation images")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for dtype in (torch.float32, torch.bfloat16):
        measure(dtype, torch.device(options.device), options.images, options.rounds)


if __name__ == "__main__":
    main()
