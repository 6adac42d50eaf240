"""Ray, started on this machine or joined elsewhere; listening on loopback unless asked otherwise."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from pipeline.cluster.auth import token_of_our_own
from pipeline.cluster.join import join
from pipeline.console import stop_on_sigterm

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
