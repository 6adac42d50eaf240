"""The worker: holds base, task vectors and data on one device; turns a recipe and a shard into sums and outcomes."""

import platform
import time

import torch

from pipeline.learning.gatherer import Gatherer
from pipeline.learning.normalisation import Calibration, NormalisedModel
from pipeline.loading.loaded import Fetch, Loaded, load_run
from pipeline.merging.resident import ResidentModel
from pipeline.messages import EvalRequest, ShardScore, WorkerInfo
from pipeline.records.sample_order import data_split
from pipeline.spec.run import RunSpec
from pipeline.workers.held import HeldRecipe
from pipeline.workers.measured import MeasuredRecipe
from tasks.base import ScoresRows, ShardResult, Task


class Worker:
    """An `Evaluator` of tasks, for a pool in this process or in Ray's actors.

    Example:
        >>> worker = Worker("local", load_spec("spec.yaml"))
        >>> worker.evaluate(EvalRequest(recipe, recipe_id, "mnist", "val", shard=0, start=0, stop=256)).stats.mean
    """

    def __init__(
        self,
        name: str,
        spec: RunSpec,
        device_type: str = "cpu",
        fetch: Fetch | None = None,
        loaded: Loaded | None = None,
    ) -> None:
        """Load everything once.

        Args:
            name: unique within the pool.
            spec: the run.
            device_type: "cuda", the first GPU that this process may use, or "cpu".
            fetch: on a cluster whose nodes may lack the spec's files.
            loaded: what this process has loaded for this worker already.

        Raises:
            ValueError: if a checkpoint or a task is not as the spec declares it.
        """
        torch.set_num_threads(max(1, int(spec.resources.per_worker.num_cpus)))
        self.name, self.device = name, torch.device(device_type)
        loaded = loaded or load_run(spec, self.device, fetch)
        self.backbone, self._tasks, self._identity = loaded.model.backbone, loaded.tasks, loaded.identity
        self._gather = Gatherer(spec, self.backbone, self._tasks, self._identity)
        self.resident = ResidentModel(
            self.backbone.module,
            self.backbone.layer_map,
            loaded.model.base.tensors,
            {expert.name: expert.delta for expert in loaded.experts},
            self.device,
            self.backbone.dtype,
            self._gather,
        )
        stored = [expert.statistics for expert in loaded.experts]
        self._held = HeldRecipe(
            NormalisedModel(self.resident, Calibration(self.backbone, self._tasks, samples), stored)
            if (samples := self._identity.calibration)
            else self.resident,
            self.backbone,
        )
        #: None if the run does not ask for the memory.
        self._measured = MeasuredRecipe(self._held, len(stored)) if spec.arena else None

    def info(self) -> WorkerInfo:
        """Return what this worker has loaded."""
        return self._identity.worker(self.name, describe_device(self.device))

    def evaluate(self, request: EvalRequest) -> ShardScore:
        """Rebuild the weights if they are those of another recipe, and score one shard.

        Raises:
            ValueError: if the recipe cannot be built.
            NonFiniteError: if weights, statistics or logits are NaN or infinite.
        """
        started = time.perf_counter()
        recipe = request.recipe
        alpha, memory = self._measured.hold(recipe) if self._measured else (self._held.hold(recipe).alpha, 0)
        rebuilt = time.perf_counter()
        task = self._tasks[request.task]
        result = self._scored(task, request)
        seconds = (rebuilt - started, time.perf_counter() - rebuilt)
        note = self._gather.note(recipe)
        known = request, result.stats, result.outcomes, alpha, seconds, self.name, note
        return ShardScore(*known, margins=result.margins, memory=memory)

    def _scored(self, task: Task, request: EvalRequest) -> ShardResult:
        if not request.rows:
            return task.evaluate(self.backbone, request.split, request.start, request.stop)
        assert isinstance(task, ScoresRows), f"{request.task}: the run's identity says that it scores any samples"
        return task.evaluate_rows(self.backbone, data_split(request.split), request.rows)


def describe_device(device: torch.device) -> str:
    """Describe a device, such as "cuda:0 (NVIDIA H200)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
