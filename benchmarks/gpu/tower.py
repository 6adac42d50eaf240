"""An image tower with random weights, two random experts and random images, all on one device.

Random values cost the same as real ones, and no file is read. Images are uint8 on the device, as decoded data are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.merging.resident import ResidentModel
from pipeline.messages import EvalRequest, ShardScore, WorkerInfo
from pipeline.recipe import Recipe
from pipeline.workers.held import HeldRecipe
from tasks.stats import Stats
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import build

CLASSES = 100


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured.

    Attributes:
        model: an open_clip architecture.
        dtype: of weights and activations.
        device: "cuda" or "cpu".
        images: of a candidate.
        batch: images a forward pass.
    """

    model: str
    dtype: torch.dtype
    device: str
    images: int
    batch: int


class Tower:
    """An `Evaluator` of one task: its shards are parts of the images."""

    def __init__(self, name: str, setting: Setting) -> None:
        """Make weights, experts and images."""
        torch.manual_seed(0)
        self.name, self.setting = name, setting
        state = create(setting.model, {}).model.state_dict()
        self.backbone = build(setting.model, state, torch.device(setting.device), setting.dtype)
        module, device = self.backbone.module, self.backbone.device
        base = {name: p.detach().float().clone() for name, p in module.named_parameters()}
        deltas = {f"expert {i}": {name: 0.01 * torch.randn_like(t) for name, t in base.items()} for i in range(2)}
        self.resident = ResidentModel(module, self.backbone.layer_map, base, deltas, device, setting.dtype)
        self.held = HeldRecipe(self.resident, self.backbone)
        size = (setting.images, 3, *self.backbone.preprocess.size)
        self._images = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
        features = self.backbone.encode(self._images[:1]).shape[1]
        self._head_KD = torch.randn(CLASSES, features, device=device)

    def info(self) -> WorkerInfo:
        """Return what this has loaded."""
        return WorkerInfo(self.name, str(self.backbone.device), "", {}, str(self.setting.dtype))

    def evaluate(self, request: EvalRequest) -> ShardScore:
        """Score a shard: a sample counts as right if its class is even."""
        self.held.hold(request.recipe)
        right = self.classes(request.start, request.stop).cpu().numpy() % 2 == 0
        total = float(np.sum(right))
        return ShardScore(request, Stats(len(right), total, total), right, 0.1, worker=self.name)

    @torch.inference_mode()
    def classes(self, start: int, stop: int) -> Tensor:
        """Return the classes of images start to stop - 1, on the device."""
        found = []
        for first in range(start, stop, self.setting.batch):
            last = min(first + self.setting.batch, stop)
            features_BD = self.backbone.encode_batch(self._images[first:last], (first, last))
            found.append((features_BD @ self._head_KD.T).argmax(1))
        return torch.cat(found)

    def whole(self) -> int:
        """Make one pass over all images, and wait for it."""
        return int(self.classes(0, self.setting.images).sum())


class Exhausts(Tower):
    """Asks for more memory than the device has at the first shard of every second candidate."""

    def evaluate(self, request: EvalRequest) -> ShardScore:
        """Score a shard, or run out of memory."""
        if request.shard == 0 and int(request.recipe_id) % 2:
            torch.empty(2**50, dtype=torch.uint8, device=self.backbone.device)
        return super().evaluate(request)


def betas(count: int, alpha: float | None = None) -> Iterator[Recipe]:
    """Yield recipes of one merge: of one alpha, or each of its own."""
    for i in range(1, count + 1):
        yield Recipe.make("sum", "linear", 0.001 * i if alpha is None else alpha, 0.01 * i)


def requests(setting: Setting, candidates: int, shard: int) -> list[EvalRequest]:
    """Return the shards of candidates."""
    starts = range(0, setting.images, shard)
    return [
        EvalRequest(recipe, str(c), "random", "val", number, start, min(start + shard, setting.images))
        for c, recipe in enumerate(betas(candidates))
        for number, start in enumerate(starts)
    ]
