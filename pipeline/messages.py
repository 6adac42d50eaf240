"""What travels between the driver and its workers: small, frozen, free of torch and Ray."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.recipe import Recipe
from tasks.stats import Stats

FailureKind = Literal["application", "lost", "non_finite", "out_of_memory"]


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """One shard of one task to score under one recipe; `recipe_id` names the weights, fingerprints included."""

    recipe: Recipe
    recipe_id: str
    task: str
    split: str
    shard: int
    start: int
    stop: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What is never scored twice: (recipe id, task, split, shard)."""
        return self.recipe_id, self.task, self.split, self.shard

    @property
    def origin(self) -> "EvalRequest":
        """The request itself (see `PoolRequest`)."""
        return self


@dataclass(frozen=True, slots=True)
class ShardScore:
    """The answer to a request.

    Attributes:
        request: what was asked.
        stats: sums over the shard's samples.
        outcomes: one value a sample: bool for accuracy, float32 for rewards.
        alpha: the recipe's alpha as a number (equation 2 resolved).
        seconds: (rebuilding the weights, evaluating), on the worker.
        worker: the worker's name.
        note: what a method that learns from data says of itself: seconds, peak_bytes, coefficients; {} for others.
        texts: the completions that a reward scored; the reward that is asked first for a shard carries them.
    """

    request: EvalRequest
    stats: Stats
    outcomes: npt.NDArray[np.bool_] | npt.NDArray[np.float32]
    alpha: float
    seconds: tuple[float, float] = (0.0, 0.0)
    worker: str = ""
    note: Mapping[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ()


#: The task of a request for completions, which rewards then score.
COMPLETIONS = "completions"


@dataclass(frozen=True, slots=True)
class Completions:
    """The answer to a request for completions.

    Attributes:
        request: what was asked; its task is COMPLETIONS.
        texts: one a sample: of a prompt all its draws, then of the next prompt.
        alpha: the recipe's alpha as a number.
        seconds: (setting the weights, generating), on the worker.
        worker: the worker's name.
    """

    request: EvalRequest
    texts: tuple[str, ...]
    alpha: float
    seconds: tuple[float, float] = (0.0, 0.0)
    worker: str = ""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Completions of one shard, to be scored by the reward that `request` names as its task."""

    request: EvalRequest
    completions: Completions

    @property
    def recipe_id(self) -> str:
        """Of the weights that made the completions."""
        return self.request.recipe_id

    @property
    def origin(self) -> EvalRequest:
        """The request of the driver (see `PoolRequest`)."""
        return self.request


class PoolRequest(Protocol):
    """What a pool can queue: it is known whose weights it is about, and what the driver asked for."""

    @property
    def recipe_id(self) -> str:
        """Of the weights."""
        ...

    @property
    def origin(self) -> EvalRequest:
        """What a failure names."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that gave no score: a record with its cause, never a zero."""

    request: EvalRequest
    kind: FailureKind
    cause: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself once loaded; all workers of a run must agree on everything but name and device.

    Attributes:
        name: unique within the pool.
        device: for people, such as "cuda:0 (NVIDIA H200)" or "cpu (AMD EPYC, 2 threads)".
        fingerprint: of base and experts: part of every recipe id.
        tasks: task name -> (fingerprint, number of validation samples, number of test samples).
        block_sizes: number of edited parameters in each block, in order of depth.
        outside_size: number of edited parameters outside the blocks.
        checkpoints: "base" and each expert's name -> content fingerprint.
        numerics: what else a score may depend on: dtype, device type, versions.
    """

    name: str
    device: str
    fingerprint: str
    tasks: dict[str, tuple[str, int, int]]
    block_sizes: tuple[int, ...]
    outside_size: int
    checkpoints: dict[str, str]
    numerics: str


@dataclass(frozen=True)
class Identity:
    """What a run's scores stand on; every worker must agree with it.

    Attributes:
        fingerprint: of base, experts and architecture; part of every recipe id.
        tasks: task -> (fingerprint, validation samples, test samples).
        metrics: task -> metric.
        block_sizes: edited parameters of each block, in order of depth.
        outside_size: edited parameters outside the blocks.
        checkpoints: "base" and each expert -> content fingerprint.
        numerics: what else a score depends on: dtype, device type, versions.
        targets: expert -> its task: what methods that learn from data learn from.
    """

    fingerprint: str
    tasks: Mapping[str, tuple[str, int, int]]
    metrics: Mapping[str, str]
    block_sizes: tuple[int, ...]
    outside_size: int
    checkpoints: Mapping[str, str]
    numerics: str
    targets: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the journal's header keeps it."""
        return {
            **asdict(self),
            "tasks": {k: list(v) for k, v in self.tasks.items()},
            "block_sizes": list(self.block_sizes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Identity":
        """Inverse of `to_json`."""
        tasks = {k: (v[0], v[1], v[2]) for k, v in data["tasks"].items()}
        return cls(**{**data, "tasks": tasks, "block_sizes": tuple(data["block_sizes"])})

    def worker(self, name: str, device: str) -> WorkerInfo:
        """What a worker of that name says of itself, having loaded all this on `device`."""
        return WorkerInfo(
            name=name,
            device=device,
            fingerprint=self.fingerprint,
            tasks=dict(self.tasks),
            block_sizes=self.block_sizes,
            outside_size=self.outside_size,
            checkpoints=dict(self.checkpoints),
            numerics=self.numerics,
        )

    def check(self, worker: WorkerInfo) -> None:
        """Refuse a worker that loaded something else.

        Raises:
            ValueError: naming the worker and what differs.
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
