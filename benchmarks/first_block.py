"""Candidates that differ in beta alone: with what enters the second block kept, and without.

A candidate is a rebuild and a pass over images in memory; every candidate is evaluated both ways, which take turns, and
the features must have the same bits. Weights and images are random, which costs the same. Seconds are CPU seconds.
Run: python -m benchmarks.first_block
"""

import argparse
import itertools
import statistics
import time

import torch
from torch import Tensor

from pipeline.merging.resident import ResidentModel
from pipeline.recipe import Recipe
from pipeline.workers.held import HeldRecipe
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import OpenClipBackbone, build


def measure(model: str, count: int, batch: int, candidates: int) -> None:
    """Print one line for a model."""
    torch.manual_seed(0)
    backbone = build(model, create(model, {}).model.state_dict(), torch.device("cpu"), torch.float32)
    base = {name: p.detach().clone() for name, p in backbone.module.named_parameters()}
    delta = {name: 0.01 * torch.randn_like(tensor) for name, tensor in base.items()}
    resident = ResidentModel(
        backbone.module, backbone.layer_map, base, {"expert": delta}, backbone.device, torch.float32
    )
    held = HeldRecipe(resident, backbone)
    images = torch.randint(0, 256, (count, 3, *backbone.preprocess.size), dtype=torch.uint8)
    # The first candidate's outputs are not kept, and the second's are made.
    recipes = [Recipe.make("single", "linear", 0.5, 0.01 * (i + 1)) for i in range(candidates + 2)]
    seconds: dict[str, list[float]] = {"kept": [], "without": []}
    for number, recipe in enumerate(recipes):
        started = time.process_time()
        held.hold(recipe)
        rebuild = time.process_time() - started
        found = {}
        sides = list(seconds)
        kept = backbone.first_block.outputs.weights
        for side in sides if number % 2 else reversed(sides):
            backbone.first_block.outputs.weights = kept if side == "kept" else None
            started = time.process_time()
            found[side] = encode(backbone, images, batch)
            if number >= 2:
                seconds[side].append(rebuild + time.process_time() - started)
        assert torch.equal(found["kept"], found["without"]), "the features differ"
    ratios = [a / b for a, b in zip(seconds["without"], seconds["kept"], strict=True)]
    size = backbone.first_block.outputs.size / count
    print(
        f"{model}, {count} images: {statistics.median(seconds['without']):.3f} s without, "
        f"{statistics.median(seconds['kept']):.3f} s kept: {statistics.median(ratios):.3f} times as fast "
        f"({min(ratios):.3f} to {max(ratios):.3f}), {size / 1000:.1f} kB an image; the same bits",
        flush=True,
    )


def encode(backbone: OpenClipBackbone, images: Tensor, batch: int) -> Tensor:
    """Return the features of all images."""
    parts = zip(itertools.count(), torch.split(images, batch))
    return torch.cat([backbone.encode_batch(part, number) for number, part in parts])


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["embedded/tiny-vit", "ViT-S-32", "ViT-B-32", "ViT-B-16"])
    parser.add_argument("--images", type=int, default=32, help="of 224 pixels; 32 times as many of the embedded model")
    parser.add_argument("--candidates", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for model in options.models:
        small = model.startswith("embedded/")
        measure(model, options.images * (32 if small else 1), 128 if small else 32, options.candidates)


if __name__ == "__main__":
    main()
