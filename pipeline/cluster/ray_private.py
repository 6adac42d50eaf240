"""All uses of Ray's private API; `tests/unit/cluster/test_ray_private.py` checks each name and signature.

Ray's public API has no way to do what these functions do; each docstring has the reason. See
docs/internals/decisions/0026-rays-private-api.md.
"""

import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial, wraps
from inspect import signature
from itertools import islice
from types import ModuleType
from typing import Any

from ray._private import parameter, ray_constants, services, state, utils, worker
from ray._private.grpc_utils import init_grpc_channel
from ray._raylet import (  # type: ignore[attr-defined]
    DASHBOARD_AGENT_LISTEN_PORT_NAME,
    AuthenticationTokenLoader,
    Config,
    persist_port,
)
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

#: Loggers of Ray's job client: they report uploads, large files and closed connections, which we report ourselves.
JOB_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)

_NO_NATIVE_HANDLER = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"
#: Ray's workers use ports below 20,000. Linux takes ports from 32,768 on for programs that name none.
_PORTS = range(20_000, 32_768)
#: Milliseconds in which Ray's agents have to start.
_AGENT_TIMEOUT = 180_000


def stay_on_loopback() -> None:
    """Make Ray use the loopback address for this node, and so bind to loopback only.

    Ray replaces `_node_ip_address="127.0.0.1"` by an address that other machines can reach, and its servers then listen
    on every interface. This switch, made for the firewalls of other systems, keeps them on loopback on Linux too; a
    test looks at the open sockets. Ray reads it when it is imported, here and in every process that it starts.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


@contextmanager
def lean_start() -> Iterator[dict[str, Any]]:
    """Let `ray.init` start no autoscaler, log monitor and API server, and not wait for the agents that it does start.

    Nothing here uses these three of seven processes. They take half the CPU time of a start, and `ray.init` waits for
    the API server even with `include_dashboard=False`. Ray gives up when an agent has not chosen its ports within 15
    seconds, as happens on a busy machine: here agents get ports, and more time.

    Yields:
        Arguments of `ray.init`.
    """
    start_raylet = services.start_raylet
    agent, environments, listen, metrics = _free_ports(4)
    changed: Any = {"no_monitor": True, "include_log_monitor": False, "metrics_agent_port": agent}
    changed |= {"runtime_env_agent_port": environments, "dashboard_agent_listen_port": listen}

    @wraps(start_raylet)
    def start_with_port(*args: Any, **kwargs: Any) -> Any:
        given = signature(start_raylet).bind(*args, **kwargs).arguments
        # The raylet takes the other ports as arguments, but reads this one from the file that the agent writes.
        persist_port(given["session_dir"], given["node_id"], DASHBOARD_AGENT_LISTEN_PORT_NAME, listen)
        return start_raylet(*args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(_replaced(parameter, "RayParams", partial(parameter.RayParams, **changed)))
        stack.enter_context(_replaced(services, "start_api_server", lambda *args, **kwargs: (None, None)))
        stack.enter_context(_replaced(services, "start_raylet", start_with_port))
        yield {"_metrics_export_port": metrics, "_system_config": {"agent_register_timeout_ms": _AGENT_TIMEOUT}}


@contextmanager
def without_signal_handlers() -> Iterator[None]:
    """Let `ray.init` leave this process's signal handlers as they are.

    Its handler of SIGTERM ends the process in the midst of a start, so that processes are left; the one that its native
    code adds even aborts the process.
    """
    with ExitStack() as stack:
        if hasattr(ray_constants, _NO_NATIVE_HANDLER):  # older versions may not know it
            stack.enter_context(_replaced(ray_constants, _NO_NATIVE_HANDLER, True))
        stack.enter_context(_replaced(utils, "set_sigterm_handler", lambda handler: None))
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _free_ports(count: int) -> list[int]:
    """Return different ports of the loopback address on which nothing listens, and that no process is given unasked."""
    free = (port for port in random.sample(_PORTS, len(_PORTS)) if _is_free(port))
    return list(islice(free, count))


def _is_free(port: int) -> bool:
    with socket.socket() as tried, suppress(OSError):
        tried.bind(("127.0.0.1", port))
        return True
    return False


def reload_token() -> None:
    """Make Ray read the token and its mode from the environment again: it reads the mode at import, the token once."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def is_head_here() -> bool:
    """Whether this process started the Ray that it uses: then no autoscaler can add nodes."""
    node = worker._global_node
    return node is not None and node.head


def node_of(actor: Any) -> str | None:
    """Return the id of the node on which an actor runs or ran, None before it has one; takes 1 ms.

    The public `ray.util.state.get_actor` asks the dashboard, which does not run here.
    """
    record: dict[str, Any] = state.actors(actor._actor_id.hex())
    # Before the actor has a process, the record has the address of its owner.
    return record["Address"]["NodeID"] if record.get("Pid") else None


def resolve_address(address: str) -> str | None:
    """Return the HOST:PORT of a cluster's address as `ray.init` resolves it; None if "auto" finds no Ray here.

    Raises:
        ValueError: if it is not an address.
        OSError: if the host is unknown.
    """
    found: str | None = services.canonicalize_bootstrap_address(address)
    return found


def check_alive(address: str, timeout: float) -> None:
    """Call a cluster's control service, with the token that Ray itself uses.

    `ray.init` tries for more than two minutes if nothing answers at the address, and then does not give the cause.

    Raises:
        grpc.RpcError: if it does not answer within `timeout` seconds, or refuses the token.
    """
    channel = init_grpc_channel(address, options=[("grpc.enable_http_proxy", 0)])
    try:
        stub: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
        stub.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=timeout)  # type: ignore[attr-defined]
    finally:
        channel.close()
