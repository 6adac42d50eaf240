"""Proves that Ray has each private name that is used, with the signature that is used, and that one file uses them.

A failure names what breaks with the installed Ray.
"""

import importlib
import inspect
import logging
import re
from operator import attrgetter
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError

from pipeline.cluster import ray_private

ROOT = Path(__file__).parents[3]
#: What breaks, the module, the name in it, and the parameters that are passed; None if it is not called.
NAMES: list[tuple[str, str, str, tuple[str, ...] | None]] = [
    ("stay_on_loopback", "ray._private.ray_constants", "ENABLE_RAY_CLUSTER", None),
    ("reload_token", "ray._raylet", "Config.initialize", ("config_list",)),
    ("reload_token", "ray._raylet", "AuthenticationTokenLoader.instance", ()),
    ("reload_token", "ray._raylet", "AuthenticationTokenLoader.reset_cache", ("self",)),
    (
        "lean_start",
        "ray._private.parameter",
        "RayParams",
        (
            "no_monitor",
            "include_log_monitor",
            "metrics_agent_port",
            "runtime_env_agent_port",
            "dashboard_agent_listen_port",
        ),
    ),
    ("lean_start", "ray._private.services", "start_api_server", ("include_dashboard",)),
    ("lean_start", "ray._private.services", "start_raylet", ("session_dir", "node_id")),
    ("lean_start", "ray._raylet", "persist_port", ("dir", "node_id", "port_name", "port")),
    ("lean_start", "ray._raylet", "DASHBOARD_AGENT_LISTEN_PORT_NAME", None),
    ("without_signal_handlers", "ray._private.ray_constants", "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", None),
    ("without_signal_handlers", "ray._private.utils", "set_sigterm_handler", ("sigterm_handler",)),
    ("is_head_here", "ray._private.worker", "_global_node", None),
    ("node_of", "ray._private.state", "actors", ("actor_id",)),
    ("node_of", "ray.actor", "ActorHandle._actor_id", None),
    ("node_of", "ray", "ActorID.hex", ("self",)),
    ("resolve_address", "ray._private.services", "canonicalize_bootstrap_address", ("addr",)),
    ("check_alive", "ray._private.grpc_utils", "init_grpc_channel", ("address", "options")),
    ("check_alive", "ray.core.generated.gcs_service_pb2_grpc", "NodeInfoGcsServiceStub", ("channel",)),
    ("check_alive", "ray.core.generated.gcs_service_pb2", "CheckAliveRequest", None),
    # In tests and benchmarks.
    ("test_job_package", "ray._private.ray_constants", "get_runtime_env_default_excludes", ()),
    (
        "test_job_package",
        "ray._private.runtime_env.packaging",
        "create_package",
        ("module_path", "target_path", "include_gitignore", "excludes"),
    ),
    ("test_deploy", "ray.autoscaler._private.util", "prepare_config", ("config",)),
    ("test_deploy", "ray.autoscaler._private.util", "validate_config", ("config",)),
    ("test_deploy", "ray.autoscaler._private.aws.config", "bootstrap_aws", ("config",)),
    ("test_deploy", "ray.autoscaler._private.aws.node_provider", "AWSNodeProvider", None),
    ("benchmarks.nodes", "ray._private.parameter", "RayParams", ("gcs_address", "num_cpus", "num_gpus")),
    ("benchmarks.nodes", "ray._private.node", "Node", ("ray_params", "head", "shutdown_at_exit", "spawn_reaper")),
]
_USES = re.compile(r"\bray\.(_private|core|autoscaler\._private)\b|\bray\._raylet\b")


@pytest.mark.parametrize(("user", "module", "name", "parameters"), NAMES, ids=lambda value: str(value))
def test_ray_has_the_name(user: str, module: str, name: str, parameters: tuple[str, ...] | None) -> None:
    try:
        found = attrgetter(name)(importlib.import_module(module))
    except (AttributeError, ImportError) as error:
        pytest.fail(f"{user} breaks with this Ray: {error}")
    if parameters is not None:
        known = inspect.signature(found).parameters
        missing = [p for p in parameters if p not in known]
        assert not missing, (
            f"{user} breaks with this Ray: {module}.{name} has no parameter {missing}, but {list(known)}"
        )


def test_ray_reports_that_an_actor_was_preempted_or_could_not_start() -> None:
    """Public classes, but attributes without documentation: `ActorGroup.died` and `RayPool` read them."""
    error = ActorDiedError()
    assert error.preempted is False and error.actor_init_failed is False


def test_nodes_have_the_attributes_that_are_read() -> None:
    source = inspect.getsource(importlib.import_module("ray._private.node"))
    for user, name in (
        ("is_head_here", "head"),
        ("benchmarks.nodes", "all_processes"),
        ("benchmarks.nodes", "node_id"),
    ):
        assert re.search(rf"self\.{name}\b.* = |def {name}\(self\)", source), f"{user} breaks with this Ray: {name}"


def test_a_start_looks_up_what_is_replaced_at_its_call() -> None:
    node = inspect.getsource(importlib.import_module("ray._private.node"))
    assert "if not self._ray_params.no_monitor" in node and "if self._ray_params.include_log_monitor" in node
    assert "process_info = ray._private.services.start_api_server(" in node
    assert "process_info = ray._private.services.start_raylet(" in node
    connect = inspect.getsource(importlib.import_module("ray._private.worker").connect)
    assert "ray._private.utils.set_sigterm_handler(" in connect or "set_sigterm_handler(" not in connect
    assert "ray_params = ray._private.parameter.RayParams(" in inspect.getsource(importlib.import_module("ray").init)


def test_ray_reads_the_loopback_switch_and_the_excludes_from_the_environment() -> None:
    source = inspect.getsource(importlib.import_module("ray._private.ray_constants"))
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" in source, "stay_on_loopback breaks with this Ray"
    assert "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES" in source, "lines submit breaks: Ray leaves out folders"


def test_the_loggers_of_the_job_client_are_those_of_ray() -> None:
    for name in ray_private.JOB_LOGGERS:
        loggers = [value for value in vars(importlib.import_module(name)).values() if isinstance(value, logging.Logger)]
        assert name in {logger.name for logger in loggers}


@pytest.mark.checkout
def test_one_file_of_the_pipeline_uses_the_private_api() -> None:
    folders = [ROOT / name for name in ("lines_sweep", "pipeline", "tasks", "search")]
    users = {path.name for folder in folders for path in folder.rglob("*.py") if _USES.search(path.read_text("utf-8"))}
    assert users == {"ray_private.py"}
