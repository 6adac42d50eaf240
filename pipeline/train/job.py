"""A model to train, how far its training is, and jobs that may be trained at the same time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.train.model_folder import Condition, condition


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """How far a job is.

    Attributes:
        step: updates done.
        total: updates in all; `step` reaches it at the end, even if training stopped early.
        text: the state in a few words, such as "loss 0.123".
    """

    step: int
    total: int
    text: str = ""


@dataclass(frozen=True)
class TrainingJob:
    """A model to train, or a measurement to make: all that a worker needs.

    Attributes:
        name: unique among the jobs of a command.
        folder: where the result is written; every worker must see it.
        identity: what decides the result; a worker that finds other inputs stops.
        total: updates in all.
        device_type: "cpu" or "cuda".
    """

    name: str
    folder: Path
    identity: Mapping[str, Any]
    total: int
    device_type: str

    def condition(self) -> Condition:
        """Return what its folder holds so far.

        Raises:
            ValueError: if the folder holds another run, or other files.
        """
        return condition(self.folder, self.identity)


J = TypeVar("J", bound=TrainingJob)
#: Trains the model of one job to its end, and reports each step.
Train = Callable[[J, Callable[[TrainingStatus], None]], None]


@dataclass(frozen=True)
class Stage(Generic[J]):
    """Jobs that may be trained at the same time.

    Attributes:
        noun: what the jobs make, in the plural, for the display.
        train: trains one of them.
        jobs: finished ones included.
    """

    noun: str
    train: Train[J]
    jobs: Sequence[J]
