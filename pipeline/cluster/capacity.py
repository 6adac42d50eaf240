"""How many actors a cluster has room for, node by node: an actor lies on one node, and a part of a GPU on one GPU."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Optional

#: Ray counts resources to four decimals: 1 // 0.2 would be 4.
_UNIT = 10_000


@dataclass(frozen=True, slots=True)
class ActorShape:
    """How many actors, and what each asks of Ray.

    Attributes:
        workers: how many; of an elastic pool, how many there was room for at first.
        num_cpus: of each.
        num_gpus: of each.
        retries: how often a request whose actor was lost is tried again.
        elastic: as many as there is room for, while nodes join and leave.
        beside: actors of another pool for which room is kept.
    """

    workers: int
    num_cpus: float = 1
    num_gpus: float = 0
    retries: int = 3
    elastic: bool = False
    beside: Optional["ActorShape"] = None

    def asks(self) -> str:
        """What one actor asks for, for people."""
        return f"{self.num_gpus:g} GPUs and {self.num_cpus:g} CPUs"


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive, with all that it has, in use or not."""

    id: str
    address: str
    cpus: float
    gpus: float = 0

    def __str__(self) -> str:
        """For people."""
        return f"{self.address} ({self.id[:8]})"


def room(nodes: Iterable[Node], shape: ActorShape) -> int:
    """How many actors of `shape` fit on `nodes`, beside those for which room is kept."""
    free = [_Free.of(node) for node in nodes]
    if shape.beside is not None:
        for _ in range(shape.beside.workers):
            any(node.take(shape.beside) for node in free)
    return sum(node.fill(shape) for node in free)


@dataclass
class _Free:
    """What is left of a node, in units."""

    cpus: int
    gpus: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, node: Node) -> "_Free":
        return cls(round(node.cpus * _UNIT), [_UNIT] * int(node.gpus))

    def fill(self, shape: ActorShape) -> int:
        count = 0
        while self.take(shape):
            count += 1
        return count

    def take(self, shape: ActorShape) -> bool:
        """Take what one actor asks for; False where that is not there."""
        cpus, gpus = round(shape.num_cpus * _UNIT), round(shape.num_gpus * _UNIT)
        each = min(gpus, _UNIT)
        fitting = [i for i, left in enumerate(self.gpus) if left >= each][: -(-gpus // _UNIT)]
        if cpus > self.cpus or len(fitting) * each < gpus or not (cpus or gpus):
            return False
        self.cpus -= cpus
        for i in fitting:
            self.gpus[i] -= each
        return True
