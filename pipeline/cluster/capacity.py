"""How many actors fit on the nodes of a cluster: an actor uses one node, and a part of a GPU uses one GPU."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

#: Ray counts resources to four decimals: 1 // 0.2 would be 4.
_UNIT = 10_000


@dataclass(frozen=True, slots=True)
class ActorShape:
    """How many actors a pool has, and the resources of each.

    Attributes:
        workers: number of actors; of an elastic pool, the number that fitted at first.
        num_cpus: CPUs of each.
        num_gpus: GPUs of each, a fraction below 1.
        retries: how often a request whose actor was lost is tried again.
        elastic: whether the pool has as many actors as fit while nodes join and leave.
        reserved: actors of another pool, whose resources are left free.
    """

    workers: int
    num_cpus: float = 1
    num_gpus: float = 0
    retries: int = 3
    elastic: bool = False
    reserved: Optional["ActorShape"] = None

    def resources(self) -> str:
        """Describe the resources of one actor."""
        return f"{self.num_gpus:g} GPUs and {self.num_cpus:g} CPUs"


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive, with its total resources."""

    id: str
    address: str
    cpus: float
    gpus: float = 0

    def __str__(self) -> str:
        """Describe the node."""
        return f"{self.address} ({self.id[:8]})"


def count_fitting(nodes: Iterable[Node], shape: ActorShape) -> int:
    """Return how many actors of `shape` fit on `nodes` after the reserved ones.

    Example:
        >>> count_fitting([Node("a", "10.0.0.1", cpus=8, gpus=1)], ActorShape(1, num_cpus=1, num_gpus=0.25))
        4
    """
    free, count = [_Free(node) for node in nodes], 0
    if shape.reserved is not None:
        for _ in range(shape.reserved.workers):
            any(node.take(shape.reserved) for node in free)
    for node in free:
        while node.take(shape):
            count += 1
    return count


class _Free:
    """The free resources of a node, in units of 1/10,000."""

    def __init__(self, node: Node) -> None:
        self.cpus, self.gpus = round(node.cpus * _UNIT), [_UNIT] * int(node.gpus)

    def take(self, shape: ActorShape) -> bool:
        """Take the resources of one actor; returns False if they are not free."""
        cpus, gpus = round(shape.num_cpus * _UNIT), round(shape.num_gpus * _UNIT)
        each = min(gpus, _UNIT)
        fitting = [i for i, left in enumerate(self.gpus) if left >= each][: -(-gpus // _UNIT)]
        if cpus > self.cpus or len(fitting) * each < gpus or not (cpus or gpus):
            return False
        self.cpus -= cpus
        for i in fitting:
            self.gpus[i] -= each
        return True
