"""Ray, started on this machine or joined elsewhere; listening on loopback unless asked otherwise."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from pipeline.cluster.join import join
from pipeline.console import stop_on_sigterm
from pipeline.cluster.nodes import alive_nodes
from pipeline.cluster.auth import token_of_our_own
from pipeline.cluster.capacity import ActorShape, Node, room
from pipeline.spec.resources import Resources

#: Bytes of the object store: requests and scores are small, weights never travel.
_OBJECT_STORE = 100 * 2**20


@contextmanager
def local_ray(
    num_cpus: int | None = None, address: str | None = None, object_store: int = _OBJECT_STORE
) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at `address`, and leave it at the end.

    Raises:
        ConnectionError: no Ray answers at `address`, or it wants another token.
        ValueError: it is no address to join, or the cluster has another Ray or Python.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack:
        if address is not None:
            join(address, common)
        else:
            stay_on_loopback()
            stack.enter_context(token_of_our_own(read_token_anew))
            ray.init(
                address="local", num_cpus=num_cpus, include_dashboard=False, object_store_memory=object_store, **common
            )
        stack.callback(ray.shutdown)
        stop_on_sigterm()  # Ray has set a handler of its own
        yield


def read_token_anew() -> None:
    """Ray reads the mode when it is imported, and the token once."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def stay_on_loopback() -> None:
    """Have Ray take the loopback address for the node's own, and so bind to loopback only.

    `_node_ip_address="127.0.0.1"` is replaced by an address that others can reach, and Ray's servers then listen on
    every interface. This switch, made for the firewalls of other systems, is what keeps them on loopback on Linux too;
    a test looks at the open sockets. It is read when Ray is imported, here and in every process that Ray starts.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


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
