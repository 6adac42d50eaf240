"""What a worker of `lines ppo` gets: everything that decides the result, and where it is written."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.train.job import TrainingJob
from pipeline.train.ppo.spec import PolicyRun, PpoSpec


@dataclass(frozen=True)
class PpoJob(TrainingJob):
    """One model to train, or one reward to measure; named by its folder in the command's, such as policies/plain.

    Attributes:
        spec: the spec of the command.
        sft: the folder of the SFT model, written by the job of that name and read by the others.
        run: the policy; None for other jobs.
    """

    spec: PpoSpec
    sft: Path
    run: PolicyRun | None = None
