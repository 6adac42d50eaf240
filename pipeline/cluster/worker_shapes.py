"""How many workers a run has on the connected cluster, and the resources of each."""

from dataclasses import replace
from typing import Literal

from pipeline.cluster.capacity import ActorShape, Node, count_fitting
from pipeline.cluster.nodes import alive_nodes
from pipeline.cluster.ray_private import is_head_here
from pipeline.spec.resources import Resources

#: The part of a GPU that a reward's actor takes if the spec does not set it.
_REWARD_GPU = 0.1


def actor_shape(resources: Resources) -> ActorShape:
    """Return the number and the resources of a run's workers.

    Raises:
        ValueError: if no node can run a worker, and no autoscaler may add one.
    """
    nodes = alive_nodes()
    num_gpus = _gpus(resources.per_worker.num_gpus, nodes, 1.0)
    shape = _shape(resources, num_gpus, nodes)
    if not count_fitting(nodes, shape) and not _nodes_may_come(resources):
        raise ValueError(
            f"resources.per_worker: asks for {shape.resources()}, but {_largest(nodes)}: ask for less, or set num_gpus "
            f"to 0 to run on CPUs{_number_hint()}"
        )
    return shape


def staged_shapes(resources: Resources, rewards: int) -> tuple[ActorShape, ActorShape]:
    """Return the shape of the workers that complete prompts, and that of each reward's actor, which is reserved.

    With `num_gpus: auto` a worker takes the part of a GPU that all rewards leave, so that these fit on its GPU
    whichever nodes leave. If that is less than half a GPU and there are other GPUs, the worker takes a whole one.

    Raises:
        ValueError: if no node can run a worker besides the rewards, and no autoscaler may add one.
    """
    nodes, per_reward = alive_nodes(), resources.per_reward
    reward = ActorShape(1, per_reward.num_cpus, _gpus(per_reward.num_gpus, nodes, _REWARD_GPU), resources.retries)
    left, gpus = round(1 - rewards * reward.num_gpus, 4), sum(n.gpus for n in nodes)
    num_gpus = _gpus(resources.per_worker.num_gpus, nodes, left if left > 0.5 or (gpus == 1 and left > 0) else 1.0)
    shape = _shape(resources, num_gpus, nodes, replace(reward, workers=rewards))
    if resources.per_worker.num_gpus == "auto" and 0 < num_gpus <= 0.5:
        shape = replace(shape, workers=1, elastic=False)  # another GPU would fit several workers
    if not count_fitting(nodes, shape) and not _nodes_may_come(resources):
        raise ValueError(
            f"resources.per_reward: {rewards} rewards, each with {reward.resources()}, leave too little for a worker, "
            f"which asks for {shape.resources()}: {_largest(nodes)}: ask for less in per_reward or "
            f"per_worker{_number_hint()}"
        )
    return shape, reward


def _gpus(asked: float | Literal["auto"], nodes: list[Node], default: float) -> float:
    return (default if any(n.gpus for n in nodes) else 0.0) if asked == "auto" else asked


def _shape(resources: Resources, num_gpus: float, nodes: list[Node], reserved: ActorShape | None = None) -> ActorShape:
    elastic = resources.workers == "auto"
    shape = ActorShape(1, resources.per_worker.num_cpus, num_gpus, resources.retries, elastic, reserved)
    workers = max(1, count_fitting(nodes, shape)) if resources.workers == "auto" else resources.workers
    return replace(shape, workers=workers)


def _nodes_may_come(resources: Resources) -> bool:
    """Whether an autoscaler may add nodes: only on a cluster that was joined, and for a given number of workers."""
    return resources.workers != "auto" and not is_head_here()


def _number_hint() -> str:
    if is_head_here():
        return ""
    return "; an autoscaler adds nodes only for a given number of workers: set resources.workers, or --workers"


def _largest(nodes: list[Node]) -> str:
    cpus, gpus = max((n.cpus for n in nodes), default=0), max((n.gpus for n in nodes), default=0)
    if len(nodes) == 1:
        return f"the cluster has {gpus:g} GPUs and {cpus:g} CPUs in all"
    return f"of the cluster's {len(nodes)} nodes none has more than {gpus:g} GPUs or {cpus:g} CPUs"
