"""Time of a rebuild of a ViT-B/32 image tower against a memcpy of the bytes that it must read and write.

A rebuild reads theta0 and the combined vector and writes theta: three times the model; the copy moves as many bytes.
`torch._foreach_*` over lists of tensors is measured for comparison. Run: python -m benchmarks.rebuild
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from pipeline.merging.resident import ResidentModel
from pipeline.recipe import ParamValue, Recipe
from tasks.base import LayerMap

WIDTH, LAYERS = 768, 12
PATTERN = r"resblocks_(\d+)_"
#: Factors of attention and MLP by the names of `tower_shapes`: a block then has five slices with a coefficient each.
COMPONENTS: Mapping[str, ParamValue] = {
    "component.attention_": 0.5,
    "pattern.attention_": "in_proj|out_proj",
    "component.mlp_": 0.8,
    "pattern.mlp_": "c_fc|c_proj",
}


def tower_shapes(width: int = WIDTH) -> dict[str, tuple[int, ...]]:
    """Return the shapes of open_clip's ViT-B/32 image tower, or of one of another width and the same depth."""
    w = width
    shapes = {"class_embedding": (w,), "positional_embedding": (50, w), "proj": (w, 512), "conv1": (w, 3, 32, 32)}
    shapes |= {f"ln_{which}_{kind}": (w,) for which in ("pre", "post") for kind in ("weight", "bias")}
    weights = {"ln_1": (w,), "ln_2": (w,), "in_proj": (3 * w, w), "out_proj": (w, w)}
    weights |= {"c_fc": (4 * w, w), "c_proj": (w, 4 * w)}
    block = weights | {f"{name}_bias": shape[:1] for name, shape in weights.items()}
    return shapes | {f"resblocks_{i}_{name}": shape for i in range(LAYERS) for name, shape in block.items()}


class Tower(nn.Module):
    """The parameters of CLIP's ViT-B/32 image tower (87.8 million), without a forward pass."""

    def __init__(self) -> None:
        """Make random parameters."""
        super().__init__()
        for name, shape in tower_shapes().items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape) * 0.02))


def median_seconds(device: torch.device, repeats: int, *actions: Callable[[], object]) -> list[tuple[float, float]]:
    """Return the median (wall, CPU) seconds of each action; they take turns, so that other load slows all equally."""
    seconds: list[list[tuple[float, float]]] = [[] for _ in actions]
    for _ in range(repeats + 1):
        for action, times in zip(actions, seconds, strict=True):
            _synchronise(device)
            wall, cpu = time.perf_counter(), time.process_time()
            action()
            _synchronise(device)
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
    # Without the first turn, which warms caches and pages.
    medians = [[statistics.median(kind) for kind in zip(*times[1:], strict=True)] for times in seconds]
    return [(wall, cpu) for wall, cpu in medians]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_resident(device: torch.device, dtype: torch.dtype, repeats: int) -> list[list[tuple[float, float]]]:
    """Measure (wall, CPU) seconds of a rebuild and of a memcpy; and of one with factors of components and without."""
    tower = Tower()
    base = {name: p.detach() for name, p in tower.named_parameters()}
    delta = {name: torch.randn_like(t) * 0.001 for name, t in base.items()}
    layer_map = LayerMap.from_pattern(base, PATTERN)
    model = ResidentModel(tower, layer_map, base, {"expert": delta}, device, dtype)
    size = sum(t.numel() for t in base.values())
    del base, delta
    plain, scaled = rebuilds(model, {}), rebuilds(model, COMPONENTS)
    copy = make_memcpy(device, size * (4 + 4 + dtype.itemsize))
    found = median_seconds(device, repeats, plain, copy, scaled)
    return [found[:2], [found[2], found[0]]]


def rebuilds(model: ResidentModel, params: Mapping[str, ParamValue]) -> Callable[[], object]:
    """Return a rebuild; two recipes take turns, so that each has work to do."""
    recipes = itertools.cycle([Recipe.make("single", "linear", alpha, 0.7, params=params) for alpha in (0.3, 0.4)])
    return lambda: model.materialise(next(recipes))


def time_foreach(device: torch.device, repeats: int) -> list[tuple[float, float]]:
    """Measure the same result in float32 by `torch._foreach_*` over the tensors, and a memcpy."""
    base = {name: p.detach().to(device) for name, p in Tower().named_parameters()}
    delta = [torch.randn_like(t) * 0.001 for t in base.values()]
    weights = [torch.empty_like(t) for t in base.values()]
    layer_map = LayerMap.from_pattern(base, PATTERN)
    lambdas = [0.3 + 0.7 * (layer_map.depth(name) or 0.0) for name in base]

    def rebuild() -> None:
        torch._foreach_copy_(weights, delta)
        torch._foreach_mul_(weights, lambdas)
        torch._foreach_add_(weights, list(base.values()))

    copy = make_memcpy(device, sum(t.numel() for t in weights) * 12)
    return median_seconds(device, repeats, rebuild, copy)


def make_memcpy(device: torch.device, moved: int) -> Callable[[], object]:
    """Return a copy that reads and writes `moved` bytes in total."""
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def main() -> None:
    """Print one JSON line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    about = {"device": str(device), "threads": torch.get_num_threads()}
    resident, components = time_resident(device, dtype, args.repeats)
    foreach = time_foreach(device, args.repeats)
    for way, against, measured in (
        (f"resident, {args.dtype}", "memcpy", resident),
        (f"resident with components, {args.dtype}", "plain", components),
        ("foreach, float32", "memcpy", foreach),
    ):
        (wall, cpu), (other_wall, other_cpu) = measured
        times = {
            "rebuild_s": round(wall, 4),
            f"{against}_s": round(other_wall, 4),
            "ratio": round(wall / other_wall, 2),
        }
        if device.type == "cpu":  # on a busy machine wall time is mostly waiting
            times |= {"cpu_s": round(cpu, 4), "cpu_ratio": round(cpu / other_cpu, 2)}
        print(json.dumps({"way": way} | about | times), flush=True)


if __name__ == "__main__":
    main()
