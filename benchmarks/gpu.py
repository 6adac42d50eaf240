"""Candidates a second for a ViT-B/32 at 224 px on synthetic images, in float32 and bfloat16, against a bare loop.

A candidate is a rebuild of the weights and one pass over the images, which are resident as uint8. The bare loop makes
the same passes without rebuilds, with weights that stay. Random weights cost the same as trained ones. Run:
python -m benchmarks.gpu (--device cpu with few images shows that it works; its figures mean nothing)
"""

import argparse
import statistics
import time
from collections.abc import Callable

import open_clip
import torch
from torch import Tensor

from pipeline.merging.resident import ResidentModel
from pipeline.recipe import Recipe
from tasks.vision.clip.backbone import OpenClipBackbone, build

MODEL = "ViT-B-32-quickgelu"
CLASSES, BATCH = 100, 256


def backbone_of(dtype: torch.dtype, device: torch.device) -> OpenClipBackbone:
    """A ViT-B/32 with random weights."""
    torch.manual_seed(0)
    return build(MODEL, open_clip.create_model(MODEL).state_dict(), device, dtype)


def resident_of(backbone: OpenClipBackbone) -> ResidentModel:
    """Two random experts, so that combining has something to do."""
    base = {name: p.detach().float().clone() for name, p in backbone.module.named_parameters()}
    deltas = {f"expert {i}": {name: 0.01 * torch.randn_like(t) for name, t in base.items()} for i in range(2)}
    return ResidentModel(backbone.module, backbone.layer_map, base, deltas, backbone.device, backbone.dtype)


def synchronise(device: torch.device) -> None:
    """Wait for what was started."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def score(backbone: OpenClipBackbone, images: Tensor, head: Tensor) -> int:
    """One pass over all images."""
    found = [(backbone.encode(part) @ head.T).argmax(1) for part in torch.split(images, BATCH)]
    return int(torch.cat(found).sum())


def seconds(work: Callable[[int], object], device: torch.device, rounds: int) -> float:
    """The median time of a call."""
    times = []
    for i in range(rounds + 1):
        synchronise(device)
        started = time.perf_counter()
        work(i)
        synchronise(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Print one line a precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=20_000, help="about the 8 tasks' validation images")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    for dtype in (torch.float32, torch.bfloat16):
        backbone = backbone_of(dtype, device)
        resident = resident_of(backbone)
        images = torch.randint(0, 256, (options.images, 3, 224, 224), dtype=torch.uint8, device=device)
        head = torch.randn(CLASSES, 512, device=device)

        def candidate(i: int, resident: ResidentModel = resident) -> object:
            return resident.materialise(Recipe.make("sum", "linear", 0.1, 0.01 * (i + 1)))

        bare = seconds(lambda i: score(backbone, images, head), device, options.rounds)  # noqa: B023
        rebuild = seconds(candidate, device, options.rounds)
        whole = seconds(lambda i: (candidate(i), score(backbone, images, head)), device, options.rounds)  # noqa: B023
        print(
            f"{name}, {dtype}: {1 / whole:.3f} candidates/s over {options.images} images ({options.images / whole:.0f} "
            f"images/s); {whole / bare:.3f} times the bare loop; a rebuild takes {1000 * rebuild:.1f} ms"
        )


if __name__ == "__main__":
    main()
