"""Proves that a local Ray requires a token that only this session has, also from processes on this machine."""

import os
import subprocess
import sys

import pytest
import ray

from pipeline.cluster.auth import session_token
from pipeline.cluster.session import local_ray

_JOIN = """
import sys, ray
from pipeline.cluster.ray_private import stay_on_loopback
stay_on_loopback()
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print("resources", ray.cluster_resources()["CPU"])
"""
_NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
#: Seconds for which a refused process retries: Ray might still start.
_PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5", "RAY_raylet_start_wait_time_s": "5"}


def joining(address: str, **env: str) -> "subprocess.Popen[str]":
    """Start a second process of this machine that tries to join."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", _JOIN, address]
    return subprocess.Popen(words, env={**clean, **_PATIENCE, **env}, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.cluster
def test_a_process_without_the_sessions_token_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = str(tmp_path_factory.mktemp("home"))
    with local_ray(num_cpus=1):
        address = ray.get_runtime_context().gcs_address
        tokens = [None, "f" * 64, os.environ["RAY_AUTH_TOKEN"]]
        shown = [{} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} for token in tokens]
        tried = [joining(address, HOME=home, **env) for env in shown]
        said = [process.communicate() for process in tried]
    (_, without), (_, other), (ours, error) = said
    assert tried[2].returncode == 0 and "resources 1.0" in ours, error
    assert tried[0].returncode and "Authentication" in without
    assert tried[1].returncode and "Authentication" in other
    assert not set(_NAMES) & set(os.environ), "the session's token ends with it"


def test_each_session_has_a_new_token(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    for _ in range(2):
        with session_token(lambda: seen.append(os.environ.get("RAY_AUTH_TOKEN"))):
            assert os.environ["RAY_AUTH_MODE"] == "token"
    first, none, second, again = seen
    assert none is again is None and first and second and len(first) == len(second) == 64 and first != second


def test_a_token_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    with session_token(lambda: pytest.fail("nothing is changed")):
        assert os.environ["RAY_AUTH_TOKEN"] == "mine"
