"""The messages between the driver and its workers: small and frozen, without torch and Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.recipe import Recipe
from tasks.stats import Stats

FailureKind = Literal["application", "lost", "non_finite", "out_of_memory"]


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """A request to score one shard of one task with one recipe.

    Attributes:
        recipe: the model to build.
        recipe_id: content id of the weights: recipe and fingerprints of base and experts.
        task: name of the task.
        split: "val" or "test".
        shard: number of the shard.
        start: first sample; with rows, its place in the order of `pipeline.records.sample_order`.
        stop: sample after the last.
        rows: the samples, if they are not start to stop - 1; () otherwise. The journal keeps their order alone.
    """

    recipe: Recipe
    recipe_id: str
    task: str
    split: str
    shard: int
    start: int
    stop: int
    rows: tuple[int, ...] = field(default=(), compare=False)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """(recipe id, task, split, shard); no key is scored twice."""
        return self.recipe_id, self.task, self.split, self.shard

    @property
    def origin(self) -> "EvalRequest":
        """The request itself (see `PoolRequest`)."""
        return self


@dataclass(frozen=True, slots=True)
class ShardScore:
    """The scores of one shard.

    Attributes:
        request: the request that it answers.
        stats: sums over the shard's samples.
        outcomes: (N,) one value for each sample: bool for accuracy, float32 for rewards.
        alpha: the recipe's alpha as a number (equation 2 resolved).
        seconds: time on the worker to rebuild the weights, and to evaluate.
        worker: name of the worker.
        note: seconds, peak_bytes and coefficients of a method that learns from data; {} for other methods.
        texts: the completions that a reward scored; only the first reward of a shard returns them.
        margins: (N,) by how much each sample is wrong (see `tasks.base.ShardResult`); None if the task has none.
        memory: in a run with an arena, the most bytes of tensors that setting the weights made at once; 0 if not known.
    """

    request: EvalRequest
    stats: Stats
    outcomes: npt.NDArray[np.bool_] | npt.NDArray[np.float32]
    alpha: float
    seconds: tuple[float, float] = (0.0, 0.0)
    worker: str = ""
    note: Mapping[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    margins: npt.NDArray[np.float32] | None = None
    memory: int = 0


#: The task of a request for completions; rewards then score them.
COMPLETIONS = "completions"


@dataclass(frozen=True, slots=True)
class Completions:
    """The completions of one shard.

    Attributes:
        request: the request that it answers; its task is COMPLETIONS.
        texts: one for each sample: all draws of the first prompt, then of the next.
        alpha: the recipe's alpha as a number.
        seconds: time on the worker to set the weights, and to generate.
        worker: name of the worker.
    """

    request: EvalRequest
    texts: tuple[str, ...]
    alpha: float
    seconds: tuple[float, float] = (0.0, 0.0)
    worker: str = ""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A request to score the completions of one shard; the task of `request` is the reward."""

    request: EvalRequest
    completions: Completions

    @property
    def recipe_id(self) -> str:
        """Id of the weights that generated the completions."""
        return self.request.recipe_id

    @property
    def origin(self) -> EvalRequest:
        """The request of the driver (see `PoolRequest`)."""
        return self.request


class PoolRequest(Protocol):
    """A request that a pool can queue."""

    @property
    def recipe_id(self) -> str:
        """Id of the weights that the request needs."""

    @property
    def origin(self) -> EvalRequest:
        """The driver's request, which a failure names."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a score: a record with the cause, never a score of zero."""

    request: EvalRequest
    kind: FailureKind
    cause: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker has loaded; all workers of a run must agree on everything but name and device.

    Attributes:
        name: unique name within the pool.
        device: text for users, such as "cuda:0 (NVIDIA H200)" or "cpu (AMD EPYC, 2 threads)".
        fingerprint: hash of base, experts and architecture, as in `Identity`.
        tasks: task -> (fingerprint, number of validation samples, number of test samples).
        numerics: dtype, device type and versions.
    """

    name: str
    device: str
    fingerprint: str
    tasks: dict[str, tuple[str, int, int]]
    numerics: str


@dataclass(frozen=True)
class Identity:
    """Everything that a run's scores depend on; every worker must have loaded the same.

    Attributes:
        fingerprint: hash of base, experts and architecture; part of every recipe id.
        tasks: task -> (fingerprint, number of validation samples, number of test samples).
        metrics: task -> metric.
        block_sizes: number of edited parameters of each block, in order of depth.
        outside_size: number of edited parameters outside the blocks.
        checkpoints: "base" and each expert -> content fingerprint.
        numerics: dtype, device type and versions, which scores also depend on.
        targets: expert -> its task, whose data the learning methods use.
        calibration: task -> number of its validation samples on which each candidate's statistics of batch
            normalisation are measured; {} if the model has none.
        sizes: task -> split -> size of each sample, for tasks whose value is a ratio (see `tasks.base.Sized`).
        together: task -> validation samples that are scored together, for tasks that score any of their samples (see
            `tasks.base.ScoresRows`); {} in runs of versions that could not.
    """

    fingerprint: str
    tasks: Mapping[str, tuple[str, int, int]]
    metrics: Mapping[str, str]
    block_sizes: tuple[int, ...]
    outside_size: int
    checkpoints: Mapping[str, str]
    numerics: str
    targets: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    together: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the journal's header, without fields that are empty and that earlier ones lack."""
        later = ("calibration", "sizes", "together")
        fields = {name: value for name, value in asdict(self).items() if value or name not in later}
        return {
            **fields,
            "tasks": {k: list(v) for k, v in self.tasks.items()},
            "block_sizes": list(self.block_sizes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Identity":
        """Build the identity that `to_json` wrote."""
        tasks = {k: (v[0], v[1], v[2]) for k, v in data["tasks"].items()}
        return cls(**{**data, "tasks": tasks, "block_sizes": tuple(data["block_sizes"])})

    def worker(self, name: str, device: str) -> WorkerInfo:
        """Return the `WorkerInfo` of a worker that has loaded all this on `device`."""
        return WorkerInfo(name, device, self.fingerprint, dict(self.tasks), self.numerics)

    def check(self, worker: WorkerInfo) -> None:
        """Require that a worker has loaded the same.

        Raises:
            ValueError: if it has not; the message names the worker and what differs.
        """
        for what, mine, its in (
            ("checkpoints", self.fingerprint, worker.fingerprint),
            ("data", dict(self.tasks), worker.tasks),
            ("numerics", self.numerics, worker.numerics),
        ):
            if mine != its:
                raise ValueError(
                    f"{worker.name} ({worker.device}): its {what} differ from the run's: {its}, not {mine}"
                )
