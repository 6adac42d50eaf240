"""Where a run or training is executed, and with how many workers; never part of its result."""

from typing import Literal

from pydantic import Field, ValidationError

from pipeline.spec.validation import explain
from pipeline.spec.values import AmountOrAuto, CountOrAuto, SpecModel


class PerWorker(SpecModel):
    """The GPUs and CPUs of one worker."""

    num_gpus: AmountOrAuto = "auto"
    """GPUs, fractions allowed; auto: 1 if the cluster has any, else 0."""
    num_cpus: float = Field(1, gt=0, le=10_000)
    """CPUs, and threads of torch (at least 1)."""


class PerReward(SpecModel):
    """The GPUs and CPUs of one actor that holds a reward."""

    num_gpus: AmountOrAuto = "auto"
    """GPUs, fractions allowed; auto: 0.1 if the cluster has any, else 0."""
    num_cpus: float = Field(0, ge=0, le=10_000)
    """CPUs, and threads of the actor (at least 1)."""


class Resources(SpecModel):
    """Where a run is executed, and with how many workers; never part of its result."""

    pool: Literal["ray", "local"] = "ray"
    """ray, or local for one worker in this process."""
    workers: CountOrAuto = "auto"
    """Number of workers; auto: as many as fit on the cluster."""
    per_worker: PerWorker = PerWorker()
    """GPUs and CPUs that each worker requests from Ray."""
    per_reward: PerReward = PerReward()
    """GPUs and CPUs that the actor of each reward requests from Ray, in a run whose tasks are rewards."""
    retries: int = Field(3, ge=0, le=10_000)
    """How often a shard is retried on another worker after its worker was lost."""

    def changed(self, pool: str | None, workers: int | None) -> "Resources":
        """Return the resources with the command-line options that are given.

        Raises:
            ValueError: if the pool is unknown or the number of workers is below 1.
        """
        changes = {key: value for key, value in (("pool", pool), ("workers", workers)) if value is not None}
        try:
            return type(self).model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise ValueError("\n".join(f"--{line}" for line in explain(error, type(self)))) from None

    def check_address(self, address: str | None) -> None:
        """Require that the local pool is not used with the address of a cluster.

        Raises:
            ValueError: if it is.
        """
        if address is not None and self.pool == "local":
            raise ValueError(f"--address {address}: the local pool joins no cluster: leave one of the two out")
