"""Ray, started on this machine or joined elsewhere; listening on loopback unless asked otherwise."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from pipeline.ray_pool import ActorShape
from pipeline.ray_token import token_of_our_own
from pipeline.spec_resources import Resources

#: Bytes of the object store: requests and scores are small, weights never travel.
_OBJECT_STORE = 100 * 2**20


@contextmanager
def local_ray(
    num_cpus: int | None = None, address: str | None = None, object_store: int = _OBJECT_STORE
) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at `address`, and leave it at the end.

    Raises:
        ConnectionError: no Ray answers at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack:
        if address is not None:
            _join(address, common)
        else:
            stay_on_loopback()
            stack.enter_context(token_of_our_own(_read_token_anew))
            ray.init(num_cpus=num_cpus, include_dashboard=False, object_store_memory=object_store, **common)
        stack.callback(ray.shutdown)
        yield


def _join(address: str, common: dict[str, Any]) -> None:
    try:
        ray.init(address=address, **common)
    except (ConnectionError, ValueError) as error:
        raise ConnectionError(
            f"--address {address}: no Ray cluster answers there ({error}); start one by `ray start --head`; if it "
            "asks for a token, put that in ~/.ray/auth_token; or leave --address out to run on this machine"
        ) from error


def _read_token_anew() -> None:
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
        ValueError: the cluster has no room for one worker.
    """
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = have.get("CPU", 0.0), have.get("GPU", 0.0)
    each = resources.per_worker
    num_gpus = (1.0 if gpus else 0.0) if each.num_gpus == "auto" else each.num_gpus
    if num_gpus > gpus or each.num_cpus > cpus:
        raise ValueError(
            f"resources.per_worker: asks for {num_gpus:g} GPUs and {each.num_cpus:g} CPUs, but the cluster has "
            f"{gpus:g} GPUs and {cpus:g} CPUs in all: ask for less, or set num_gpus to 0 to run on CPUs"
        )
    room = min(_room(cpus, each.num_cpus), _room(gpus, num_gpus)) if num_gpus else _room(cpus, each.num_cpus)
    workers = max(1, room) if resources.workers == "auto" else resources.workers
    return ActorShape(workers, each.num_cpus, num_gpus, resources.retries)


def _room(have: float, asked: float) -> int:
    """How many times `asked` goes into `have`, to Ray's own four decimals: 1 // 0.2 would be 4."""
    return round(have * 10_000) // max(1, round(asked * 10_000))


#: The part of a GPU that a reward's actor takes where the spec leaves it to us.
_REWARD_GPU = 0.1


def staged_shapes(resources: Resources, rewards: int) -> tuple[ActorShape, ActorShape]:
    """The shape of the workers that complete prompts, and of each reward's actor; room is kept for the latter.

    Raises:
        ValueError: the cluster has no room for one worker beside the rewards.
    """
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = have.get("CPU", 0.0), have.get("GPU", 0.0)
    asked, each = resources.per_reward, resources.per_worker
    of_reward = (_REWARD_GPU if gpus else 0.0) if asked.num_gpus == "auto" else asked.num_gpus
    left_cpus, left_gpus = cpus - rewards * asked.num_cpus, round(gpus - rewards * of_reward, 4)
    # On one GPU, a worker that asks for nothing in particular takes what the rewards leave, if that is anything.
    whole = left_gpus if gpus == 1 and left_gpus > 0 else 1.0
    num_gpus = (whole if gpus else 0.0) if each.num_gpus == "auto" else each.num_gpus
    if num_gpus > left_gpus or each.num_cpus > left_cpus:
        raise ValueError(
            f"resources.per_reward: {rewards} rewards leave {left_gpus:g} GPUs and {left_cpus:g} CPUs, but a worker "
            f"asks for {num_gpus:g} and {each.num_cpus:g}: ask for less in per_reward or per_worker"
        )
    room = _room(left_cpus, each.num_cpus)
    room = min(room, _room(left_gpus, num_gpus)) if num_gpus else room
    workers = max(1, room) if resources.workers == "auto" else resources.workers
    shape = ActorShape(workers, each.num_cpus, num_gpus, resources.retries)
    return shape, ActorShape(1, asked.num_cpus, of_reward, resources.retries)
