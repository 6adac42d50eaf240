"""How many workers fit on the cluster, and what each asks for."""

from dataclasses import replace
from typing import Literal

from pipeline.cluster.capacity import ActorShape, Node, room
from pipeline.cluster.nodes import alive_nodes
from pipeline.spec.resources import Resources


def actor_shape(resources: Resources) -> ActorShape:
    """How many workers, and what each asks for, on the Ray that is joined.

    Raises:
        ValueError: no node has room for one worker, and none is asked for.
    """
    nodes = alive_nodes()
    num_gpus = _gpus(resources.per_worker.num_gpus, nodes, 1.0)
    shape = _shape(resources, num_gpus, nodes)
    if not room(nodes, shape) and not _may_come(resources):
        raise ValueError(
            f"resources.per_worker: asks for {shape.asks()}, but {_largest(nodes)}: ask for less, or set num_gpus to 0 "
            f"to run on CPUs{_ask_for_a_number()}"
        )
    return shape


def _gpus(asked: float | Literal["auto"], nodes: list[Node], usual: float) -> float:
    return (usual if any(n.gpus for n in nodes) else 0.0) if asked == "auto" else asked


def _shape(resources: Resources, num_gpus: float, nodes: list[Node], beside: ActorShape | None = None) -> ActorShape:
    elastic = resources.workers == "auto"
    shape = ActorShape(1, resources.per_worker.num_cpus, num_gpus, resources.retries, elastic, beside)
    workers = max(1, room(nodes, shape)) if resources.workers == "auto" else resources.workers
    return replace(shape, workers=workers)


def _may_come(resources: Resources) -> bool:
    """Whether an autoscaler may bring nodes: only where Ray runs elsewhere, and workers are asked of it by number."""
    return resources.workers != "auto" and not _started_here()


def _started_here() -> bool:
    from ray._private import worker

    node = worker._global_node
    return node is not None and node.head


def _ask_for_a_number() -> str:
    if _started_here():
        return ""
    return "; workers that an autoscaler is to make room for are asked for by number: resources.workers, or --workers"


def _largest(nodes: list[Node]) -> str:
    """What there is, for people."""
    cpus, gpus = max((n.cpus for n in nodes), default=0), max((n.gpus for n in nodes), default=0)
    if len(nodes) == 1:
        return f"the cluster has {gpus:g} GPUs and {cpus:g} CPUs in all"
    return f"of the cluster's {len(nodes)} nodes none has more than {gpus:g} GPUs or {cpus:g} CPUs"


#: The part of a GPU that a reward's actor takes where the spec leaves it to us.
_REWARD_GPU = 0.1


def staged_shapes(resources: Resources, rewards: int) -> tuple[ActorShape, ActorShape]:
    """The shape of the workers that complete prompts, and of each reward's actor; room is kept for the latter.

    A worker that asks for nothing in particular takes what all the rewards leave of a GPU: then they find a place
    beside it, whichever nodes leave. Only where that is less than half a GPU and there are others, it takes one whole.

    Raises:
        ValueError: no node has room for one worker beside the rewards.
    """
    nodes, asked = alive_nodes(), resources.per_reward
    of_reward = ActorShape(1, asked.num_cpus, _gpus(asked.num_gpus, nodes, _REWARD_GPU), resources.retries)
    left, gpus = round(1 - rewards * of_reward.num_gpus, 4), sum(n.gpus for n in nodes)
    num_gpus = _gpus(resources.per_worker.num_gpus, nodes, left if left > 0.5 or (gpus == 1 and left > 0) else 1.0)
    shape = _shape(resources, num_gpus, nodes, replace(of_reward, workers=rewards))
    if resources.per_worker.num_gpus == "auto" and 0 < num_gpus <= 0.5:
        shape = replace(shape, workers=1, elastic=False)  # another GPU would take several workers
    if not room(nodes, shape) and not _may_come(resources):
        raise ValueError(
            f"resources.per_reward: {rewards} rewards, each with {of_reward.asks()}, leave no room for a worker, which "
            f"asks for {shape.asks()}: {_largest(nodes)}: ask for less in per_reward or per_worker{_ask_for_a_number()}"
        )
    return shape, of_reward
