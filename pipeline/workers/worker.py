"""The worker: base, task vectors and data resident on one device; a recipe and a shard in, sums and outcomes out."""

import platform
import time
from collections.abc import Callable
from typing import Protocol

import torch

from pipeline.learning.gatherer import Gatherer
from pipeline.loading.model import identify, load_experts, load_model, load_tasks
from pipeline.merging.resident import Applied, ResidentModel
from pipeline.messages import EvalRequest, ShardScore, WorkerInfo
from pipeline.recipe import Recipe
from pipeline.spec.run import RunSpec


class Worker:
    """A plain class: the local pool calls it, Ray's actors wrap it."""

    def __init__(
        self, spec: RunSpec, name: str = "local", device_type: str = "cpu", here: RunSpec | None = None
    ) -> None:
        """Load everything once.

        Args:
            spec: the run.
            name: unique within the pool.
            device_type: "cuda", the first GPU that this process may use, or "cpu".
            here: the same with the places of its files on this machine, where they are others.

        Raises:
            ValueError: a checkpoint or a task is not what the spec says.
        """
        torch.set_num_threads(max(1, int(spec.resources.per_worker.num_cpus)))
        self.name = name
        self.device = torch.device(device_type)
        here = here or spec
        model = load_model(here, self.device)
        fingerprints, deltas = {}, {}
        for expert in load_experts(here, model):
            fingerprints[expert.name], deltas[expert.name] = expert.fingerprint, expert.delta
        self.backbone = model.backbone
        self._tasks = load_tasks(here, model, lambda what, done, total: None)
        self._identity = identify(spec, model, fingerprints, self._tasks, self.device)
        self._gather = Gatherer(spec, self.backbone, self._tasks, self._identity)
        self.resident = ResidentModel(
            self.backbone.module,
            self.backbone.layer_map,
            model.base.tensors,
            deltas,
            self.device,
            self.backbone.dtype,
            self._gather,
        )
        self._held = Held(self.resident)

    def info(self) -> WorkerInfo:
        """What it has loaded."""
        return self._identity.worker(self.name, describe_device(self.device))

    def evaluate(self, request: EvalRequest) -> ShardScore:
        """Rebuild the weights unless they are there already, and score one shard.

        Raises:
            ValueError: the recipe cannot be built, or gives NaN or infinite weights or logits.
        """
        started = time.perf_counter()
        alpha = self._held.hold(request.recipe).alpha
        rebuilt = time.perf_counter()
        task = self._tasks[request.task]
        result = task.evaluate(self.backbone, request.split, request.start, request.stop)
        seconds = (rebuilt - started, time.perf_counter() - rebuilt)
        note = self._gather.note(request.recipe)
        return ShardScore(request, result.stats, result.outcomes, alpha, seconds, self.name, note)


class Materialises(Protocol):
    """What has a model compute as a recipe says, by its weights or by scales beside them."""

    def materialise(self, recipe: Recipe) -> Applied:
        """Set it; whatever was set before has no part in it."""
        ...


class Held:
    """The recipe that is set: a candidate's next shard need not set it again."""

    def __init__(self, model: Materialises) -> None:
        """Nothing is set yet."""
        self._model = model
        self._holds: tuple[Recipe, Applied] | None = None

    def hold(self, recipe: Recipe) -> Applied:
        """Set `recipe` unless it is set already.

        Raises:
            ValueError: it cannot be set.
        """
        if self._holds is None or self._holds[0] != recipe:
            self._holds = None  # what fails leaves the weights of no recipe
            self._holds = recipe, self._model.materialise(recipe)
        return self._holds[1]


def describe_device(device: torch.device) -> str:
    """A device for people, such as "cuda:0 (NVIDIA H200)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


#: Brings what a spec names to this machine, and gives the spec with the places where that now is.
Fetch = Callable[[RunSpec], RunSpec]


def make_worker(name: str, spec: RunSpec, device_type: str = "cpu", fetch: Fetch | None = None) -> Worker:
    """What a Ray actor calls to make its worker."""
    return Worker(spec, name, device_type, fetch and fetch(spec))
