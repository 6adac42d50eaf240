"""The worker: base, task vectors and data resident on one device; a recipe and a shard in, sums and outcomes out."""

import platform
import time
from collections.abc import Callable

import torch

from pipeline.learning.gatherer import Gatherer
from pipeline.loading.experts import load_checkpoints
from pipeline.loading.identity import identify
from pipeline.loading.tasks import load_tasks
from pipeline.merging.resident import ResidentModel
from pipeline.messages import EvalRequest, ShardScore, WorkerInfo
from pipeline.spec.run import RunSpec
from pipeline.workers.held import Held


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
        model, experts = load_checkpoints(here, self.device)
        fingerprints, deltas = {}, {}
        for expert in experts:
            fingerprints[expert.name], deltas[expert.name] = expert.fingerprint, expert.delta
        self.backbone = model.backbone
        self._tasks = load_tasks(here, self.backbone, lambda what, done, total: None)
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
