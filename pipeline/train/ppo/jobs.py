"""What a worker is given to do: everything that decides the result, and where it is written."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pipeline.train.model_folder import LOG, condition
from pipeline.train.policy_log import TRAINING_FILE
from pipeline.train.ppo.spec import PolicyRun, PpoSpec

_PACKAGES = ("lines-sweep", "torch", "transformers", "peft", "trl")
COMPLETIONS_FILE = "completions.parquet"
#: What a job that was killed before its first checkpoint, or before its end, may have left.
_LEAVINGS = (LOG, TRAINING_FILE, COMPLETIONS_FILE)


def versions() -> dict[str, str]:
    """Of Python and of the packages that training stands on."""
    return {"python": platform.python_version(), **{package: metadata.version(package) for package in _PACKAGES}}


@dataclass(frozen=True, slots=True)
class PpoStatus:
    """How far a job is; see `pipeline.train.display.TrainingStatus`."""

    step: int
    total: int
    said: str


@dataclass(frozen=True)
class PpoJob:
    """One model to make, or one measurement.

    Attributes:
        name: of the folder within the command's folder, such as policies/plain.
        spec: that it stands in.
        folder: where it is written; every worker must see it.
        sft: the folder of the SFT model: written by the job of that name, read by the others.
        identity: what decides the result; a worker that loads anything else stops.
        total: steps in all.
        device_type: "cpu" or "cuda".
        run: the policy, for the job of one.
    """

    name: str
    spec: PpoSpec
    folder: Path
    sft: Path
    identity: Mapping[str, Any]
    total: int
    device_type: str
    run: PolicyRun | None = None

    def condition(self) -> Literal["new", "started", "finished"]:
        """What is to be done.

        Raises:
            ValueError: the folder holds another run, or something else.
        """
        return condition(self.folder, self.identity, _LEAVINGS)
