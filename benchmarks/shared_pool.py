"""A pool that several benchmark runs use."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pipeline.messages import EvalRequest, Failure, ShardScore, WorkerInfo
from pipeline.pools.actor import Actor
from pipeline.pools.ray_pool import RayPool


@dataclass
class SharedPool:
    """A pool that several runs use, and that records the time of each answer."""

    pool: RayPool
    came: list[tuple[float, ShardScore]] = field(default_factory=list)
    #: Number of answers -> an action to take when they have arrived.
    then: dict[int, Callable[[], None]] = field(default_factory=dict)

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers of the pool."""
        return self.pool.workers

    def submit(self, requests: Iterable[EvalRequest]) -> None:
        """Submit to the pool."""
        self.pool.submit(requests)

    def wait(self, timeout: float | None = None) -> list[ShardScore | Failure]:
        """Wait for the pool, and record its answers."""
        answers = self.pool.wait(timeout)
        self.came += [(time.time(), answer) for answer in answers if isinstance(answer, ShardScore)]
        for count in [count for count in self.then if len(self.came) >= count]:
            self.then.pop(count)()
        return answers

    def close(self) -> None:
        """Keep the workers for the next run."""

    def actor(self, worker: str) -> Actor[EvalRequest]:
        """Return the pool's record of a worker."""
        (found,) = (actor for actor in self.pool.actors if actor.name == worker)
        return found
