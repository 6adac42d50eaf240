"""A sweep over the embedded tasks: the pipeline's wall time against a bare PyTorch loop, and two workers against one.

The bare loop makes the same forward passes over the same tensors in memory, and sets the weights by a plain loop over
parameters. Both sides use one thread a worker. Timing begins when workers have loaded and ends with the tables on disk.
Sides alternate, so that changes of the machine's speed affect all. Run: python -m benchmarks.sweep
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.shared_pool import SharedPool
from pipeline.cluster.capacity import ActorShape
from pipeline.cluster.session import local_ray
from pipeline.loading.experts import load_checkpoints
from pipeline.loading.prepare import prepare as prepare_run
from pipeline.messages import Identity
from pipeline.plan.plan import Plan, make_plan
from pipeline.pools.ray_pool import RayPool
from pipeline.run.run import run
from pipeline.spec.load import parse_spec
from pipeline.workers.worker import Worker
from tasks.base import Backbone, TaskRequest
from tasks.vision.backbones import image_backbone
from tasks.vision.decoded import prepare
from tasks.vision.sources import image_source

BATCH = 128
TASKS = ["mnist", "fashion", "kana", "katakana", "greek", "cyrillic", "emoji", "icons"]


def spec_of(candidates: int, samples: int) -> dict[str, object]:
    """Return a spec with one merge and `candidates` constants, so that bare loop and pipeline make the same passes."""
    grid = [round(0.01 * (i + 1), 6) for i in range(candidates)]
    return {
        "name": "benchmark",
        "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        "base": "embedded/base",
        "experts": {t: f"embedded/{t}" for t in TASKS},
        "tasks": TASKS,
        "limits": {"val": samples, "test": 1},
        "arms": {"merge": {"merge": "sum", "scaling": {"alpha": {"grid": grid}}, "select": {"maximise": "mean"}}},
    }


def tensors(plan: Plan, backbone: Backbone) -> dict[str, list[tuple[Tensor, Tensor, Tensor]]]:
    """Return split -> (uint8 images, labels, head) of each task, in memory."""
    encoder, limits = image_backbone(backbone), {str(split): n for split, n in plan.spec.limits.items()}
    found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {"val": [], "test": []}
    for name, task in plan.spec.tasks.items():
        source = image_source(TaskRequest(name, task.source))
        head = encoder.head(source.class_names, source.templates).weights_KD
        for split, images in prepare(source, encoder.preprocess).items():
            if split in found:
                n = limits[split]
                found[split].append((images.slice(0, n).clone(), images.labels_N[:n], head))
    return found


def bare_loop(plan: Plan) -> Callable[[], float]:
    """Return a sweep without the pipeline, which returns its seconds."""
    model, experts = load_checkpoints(plan.spec, torch.device("cpu"))
    base = {name: tensor.float() for name, tensor in model.base.tensors.items()}
    singles = [expert.delta for expert in experts]
    total = {name: torch.stack([delta[name] for delta in singles]).sum(0) for name in base}
    grid = [float(point["alpha"]) for group in plan.searched for point in group.space.grid()]
    own = ((delta, 1.0, [task]) for task, delta in zip(TASKS, singles, strict=True))
    edits = [(total, 0.0, TASKS), *own, *((total, alpha, TASKS) for alpha in grid)]
    parameters = dict(model.backbone.module.named_parameters())
    encoder, data = image_backbone(model.backbone), tensors(plan, model.backbone)

    def evaluate(split: str, tasks: list[str]) -> None:
        for images, labels, head in (data[split][TASKS.index(task)] for task in tasks):
            for i in range(0, len(labels), BATCH):
                (encoder.encode(images[i : i + BATCH]) @ head.T).argmax(1).eq(labels[i : i + BATCH]).sum().item()

    @torch.inference_mode()
    def sweep() -> float:
        started = time.perf_counter()
        for i, (delta, coefficient, tasks) in enumerate(edits):
            for name, parameter in parameters.items():
                parameter.copy_(base[name] + coefficient * delta[name])
            evaluate("val", tasks)
            if i <= len(singles) + 1:  # references and the chosen candidate are tested too
                evaluate("test", tasks)
        return time.perf_counter() - started

    return sweep


def pipeline_sweep(plan: Plan, identity: Identity, workers: int) -> Callable[[], float]:
    """Load and warm up workers; return a run on them, tables included, which returns its seconds."""
    pool = RayPool(partial(Worker, spec=plan.spec, device_type="cpu"), ActorShape(workers))
    shared = SharedPool(pool)
    with tempfile.TemporaryDirectory() as folder:
        run(plan, identity, Path(folder) / "warm-up", lambda: shared, None)

    def sweep() -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            run(plan, identity, Path(folder) / "run", lambda: shared, None)
            return time.perf_counter() - started

    return sweep


def alternate(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run the sides in turn; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, sweep in sides.items():
            seconds[name].append(sweep())
    for name, values in seconds.items():
        print(f"{name:24} " + " ".join(f"{v:7.2f}" for v in values) + "  s")
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--samples", type=int, default=128, help="validation images of each task")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = make_plan(parse_spec(spec_of(options.candidates, options.samples)))
    identity = prepare_run(plan.spec, "cpu", lambda what, done, total: None)
    with local_ray(num_cpus=4):
        sides = {
            "bare loop": bare_loop(plan),
            "pipeline, 1 worker": pipeline_sweep(plan, identity, 1),
            "pipeline, 2 workers": pipeline_sweep(plan, identity, 2),
        }
        medians = alternate(sides, options.rounds)
    one, two = medians["pipeline, 1 worker"], medians["pipeline, 2 workers"]
    # The base on all tasks, and the experts on one each, are two candidates more.
    images = (options.candidates + 2) * len(TASKS) * options.samples
    print(f"images a sweep: {images}; bare loop: {images / medians['bare loop']:.0f} images/s on one thread")
    print(f"overhead: one worker takes {one / medians['bare loop']:.3f} times the bare loop (aim 1.05, at most 1.15)")
    print(f"speed-up: two workers are {one / two:.2f} times as fast as one (aim 1.8)")


if __name__ == "__main__":
    main()
