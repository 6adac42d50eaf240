"""Where and how wide a run or a training is executed; never part of its result."""

from typing import Literal

from pydantic import Field

from pipeline.spec.values import AmountOrAuto, CountOrAuto, SpecModel


class PerWorker(SpecModel):
    """The GPUs and CPUs of one worker."""

    num_gpus: AmountOrAuto = "auto"
    """GPUs, fractions too; auto: 1 where the cluster has any, else 0."""
    num_cpus: float = Field(1, gt=0)
    """CPUs, which are also the threads that torch may use (at least 1)."""


class PerReward(SpecModel):
    """The GPUs and CPUs of one actor that holds a reward."""

    num_gpus: AmountOrAuto = "auto"
    """GPUs, fractions too; auto: 0.1 where the cluster has any, else 0."""
    num_cpus: float = Field(0, ge=0)
    """CPUs; the actor computes with as many threads, and at least 1."""


class Resources(SpecModel):
    """Where and how wide a run is executed; never part of its result."""

    pool: Literal["ray", "local"] = "ray"
    """ray, or local: one worker in this process."""
    workers: CountOrAuto = "auto"
    """Number of workers; auto: as many as the cluster has room for."""
    per_worker: PerWorker = PerWorker()
    """What each worker asks of Ray."""
    per_reward: PerReward = PerReward()
    """What the actor of each reward asks of Ray, in a run whose tasks are rewards."""
    retries: int = Field(3, ge=0)
    """How often a shard whose worker was lost is tried again elsewhere."""

    def changed(self, pool: str | None, workers: int | None) -> "Resources":
        """As a command's options have them, where these were given.

        Raises:
            ValueError: no such pool, or no worker at all.
        """
        changes = {key: value for key, value in (("pool", pool), ("workers", workers)) if value}
        return type(self).model_validate({**self.model_dump(), **changes})
