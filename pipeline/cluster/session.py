"""Start Ray on this machine, listening on loopback only, or join a cluster."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import ray

from pipeline.cluster.auth import session_token
from pipeline.cluster.join import join
from pipeline.cluster.ray_private import lean_start, reload_token, stay_on_loopback, without_signal_handlers
from pipeline.cluster.session_folder import private_folder
from pipeline.signals import late_stop, signals_to_command_only, stop_on_signals
from tasks.cores import permitted_cores
from tasks.files.temporary import remove_unused

#: Bytes of the object store: requests and scores are small, weights never travel.
_OBJECT_STORE = 100 * 2**20


@contextmanager
def local_ray(
    num_cpus: int | None = None, address: str | None = None, object_store: int = _OBJECT_STORE
) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at `address`; disconnect at the end.

    Args:
        num_cpus: CPUs of the Ray that is started; by default the cores that this process may use.
        address: the cluster to join; None to start Ray here.
        object_store: bytes of the object store of the Ray that is started.

    Raises:
        ConnectionError: if no Ray answers at `address`, or it requires another token.
        ValueError: if it is not an address to join, or the cluster has another version of Ray or Python, or if there
            is no folder for Ray's session.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    stop_on_signals()
    with ExitStack() as stack:
        if address is not None:
            _end_ray(stack)
            with without_signal_handlers():
                join(address, common)
        else:
            stay_on_loopback()
            num_cpus = permitted_cores().permitted if num_cpus is None else num_cpus
            stack.enter_context(session_token(reload_token))
            stack.enter_context(private_folder())
            _end_ray(stack)
            own = common | {"num_cpus": num_cpus, "object_store_memory": object_store, "include_dashboard": False}
            with late_stop(), signals_to_command_only(), without_signal_handlers(), lean_start() as lean:
                ray.init(address="local", **own, **lean)
        yield


def _end_ray(stack: ExitStack) -> None:
    """End Ray with the stack, also if its start fails half-way; then remove what its workers, which are gone, left."""
    stack.callback(remove_unused)
    stack.callback(ray.shutdown)
