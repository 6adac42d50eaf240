"""Models for tests of pipeline/learning: linear ones with known answers, and the embedded models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.loading.experts import load_checkpoints
from pipeline.loading.identity import identify
from pipeline.loading.tasks import load_tasks
from pipeline.merging.methods.base import Experts
from pipeline.messages import Identity
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, LayerMap, Task


class LinearEncoder:
    """A module of two linear blocks: the features of a flat float "image" x are B A x."""

    family, device, dtype = "linear", torch.device("cpu"), torch.float32

    def __init__(self, a: Tensor, b: Tensor) -> None:
        first, second = (nn.Linear(w.shape[1], w.shape[0], bias=False) for w in (a, b))
        self.module = nn.Sequential(first, second).requires_grad_(False)
        first.weight.data, second.weight.data = a.clone(), b.clone()
        self.layer_map = LayerMap({"0.weight": 0, "1.weight": 1}, 2)
        self.preprocess = self.head = None

    def encode(self, images: Tensor) -> Tensor:
        return self.embed(images)

    def embed(self, images: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        features: Tensor = functional_call(self.module, dict(parameters or {}), (images,))
        return features


class Rows:
    """A task with given inputs and labels, whose logits are the features."""

    def __init__(self, inputs: Tensor, labels: Sequence[int]) -> None:
        self.name, self.inputs, self.labels = "rows", inputs, torch.tensor(labels)

    def num_samples(self, split: str) -> int:
        return {"val": len(self.inputs)}[split]

    def batch(self, split: str, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        assert split == "val", "nothing may be learned from another split"
        return self.inputs[rows], self.labels[rows]

    def logits(self, features: Tensor) -> Tensor:
        return features


@dataclass(frozen=True)
class Embedded:
    """Embedded experts, as a worker holds them."""

    spec: RunSpec
    backbone: Backbone
    tasks: dict[str, Task]
    identity: Identity
    experts: Experts

    @classmethod
    def load(cls, *names: str, val: int = 40) -> "Embedded":
        spec = parse_spec(
            {
                "name": "learned",
                "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
                "base": "embedded/base",
                "experts": {name: f"embedded/{name}" for name in names},
                "tasks": list(names),
                "arms": {"sum": {"merge": "sum"}},
                "limits": {"val": val, "test": 10},
            }
        )
        device = torch.device("cpu")
        model, found = load_checkpoints(spec, device)
        experts = list(found)
        tasks = load_tasks(spec, model.backbone, lambda what, done, total: None)
        identity = identify(spec, model, {e.name: e.fingerprint for e in experts}, tasks, device)
        return cls(spec, model.backbone, tasks, identity, Experts([e.delta for e in experts], model.base.tensors))
