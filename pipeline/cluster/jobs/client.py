"""Ray Jobs by HTTP: a cluster's address checked before anything is sent, jobs submitted, followed and cancelled."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.cluster.auth import has_token, use_token
from pipeline.cluster.jobs.package import Package
from tasks.registry import near

#: Of Ray's dashboard, which takes jobs.
_PORT = 8265
_SECONDS_TO_ANSWER = 10
#: Seconds from one look at a job to the next; and characters a second that its log may cost, which is sent whole.
_AGAIN, _MOST_PER_SECOND = 1.0, 100_000
#: How long the cluster may be out of reach before following is given up; the job goes on all the same.
_OUT_OF_REACH = 300.0
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_OURS = "lines-sweep"
#: Ray takes these instead of the address that it is given.
_NO_OVERRIDES = {"RAY_API_SERVER_ADDRESS": None, "RAY_ADDRESS": None}
#: Ray would leave out folders of some names (.git, .venv, venv, __pycache__), whatever is in them.
_NO_EXCLUDES = {"RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": ""}
#: They tell of uploads, large files and closed connections in words for programmers.
_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


@dataclass(frozen=True)
class SubmittedJob:
    """One job of ours on a cluster.

    Attributes:
        id: as `lines jobs attach` takes it.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        out: the run's folder, as it was asked for.
        started: seconds since 1970; 0 before it has started.
        exit_code: of the run; None before it has ended, or where it never ran.
        message: Ray's, of its status.
    """

    id: str
    status: str
    out: str
    started: float
    exit_code: int | None
    message: str

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in _ENDED


class Jobs:
    """The jobs of the cluster whose dashboard answers at `address`."""

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            ValueError: `address` is none of a dashboard, or its token is another one.
            ConnectionError: nothing answers there.
        """
        self.url = jobs_url(address)
        _check_answers(address, self.url)
        use_token(address)
        self._client = _connected(address, self.url)

    @property
    def in_the_clear(self) -> bool:
        """Whether the token crosses a network unencrypted."""
        parts = urlsplit(self.url)
        return has_token() and parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1")

    def submit(self, job_id: str, out: str, package: Package, env: Mapping[str, str]) -> None:
        """Send the package, where the cluster has not got it yet, and start the job.

        Raises:
            ConnectionError: the cluster does not take it.
        """
        from tasks.vision.published.files import JOB  # it takes long to import, and other commands do without

        # Without the safe path, what lies in the job's folder comes before our code: a plug-in named tasks.py, say.
        # With it the packages that are sent come first, then that folder: so Ray sets PYTHONPATH.
        variables = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", JOB: "1"}
        runtime_env = {
            "working_dir": str(package.working_dir),
            "py_modules": [str(module) for module in package.modules],
            "env_vars": {**variables, **env},
        }
        about, entrypoint = {_OURS: "1", "out": out}, "python3 -m pipeline.cli.job_entry"
        try:
            with _environment(_NO_EXCLUDES):
                self._client.submit_job(
                    entrypoint=entrypoint, submission_id=job_id, runtime_env=runtime_env, metadata=about
                )
        except RuntimeError as error:
            raise ConnectionError(f"{self.url}: the cluster does not take the job: {error}") from error

    def all(self) -> list[SubmittedJob]:
        """Ours, the newest first; also those that have ended."""
        found = [_job(details) for details in self._client.list_jobs() if (details.metadata or {}).get(_OURS)]
        return sorted(found, key=lambda job: -job.started)

    def get(self, job_id: str) -> SubmittedJob:
        """One job.

        Raises:
            ValueError: there is none of that name; near ones are given.
        """
        jobs = {job.id: job for job in self.all()}
        if job_id not in jobs:
            raise ValueError(f"{job_id}: no such job on {self.url}; {near(job_id, jobs)}; `lines jobs list` shows them")
        return jobs[job_id]

    def cancel(self, job_id: str) -> bool:
        """Stop a job; False where it had ended already."""
        return not self.get(job_id).ended and bool(self._client.stop_job(job_id))

    def follow(self, job_id: str, say: Callable[[str], None]) -> SubmittedJob:
        """Pass on what the job says from its beginning until it ends, also across a broken connection.

        The whole log is asked for again and again: Ray's own way to follow one gives ten lines a second, so that it
        takes minutes to catch up with a job of some hours.

        Raises:
            ConnectionError: the cluster was out of reach for too long.
        """
        heard, reached = 0, time.monotonic()
        while True:
            try:
                job = self.get(job_id)  # before its log: what it said last is in it
                log, reached = self._client.get_job_logs(job_id), time.monotonic()
            except (OSError, RuntimeError) as error:  # what requests raises is an OSError
                if time.monotonic() - reached > _OUT_OF_REACH:
                    raise ConnectionError(
                        f"{self.url}: out of reach ({error}); the job goes on: `lines jobs attach {job_id}` shows it"
                    ) from error
                time.sleep(_AGAIN)
                continue
            if new := log[heard:]:
                say(new)
            if job.ended:
                return job
            heard = len(log)
            time.sleep(max(_AGAIN, len(log) / _MOST_PER_SECOND))


def jobs_url(address: str) -> str:
    """The URL of a dashboard from http(s)://HOST:PORT, HOST:PORT, HOST or auto, this machine.

    Raises:
        ValueError: it is neither.
    """
    if address == "auto":
        address = "127.0.0.1"
    scheme, found, rest = address.rpartition("://")
    parts = urlsplit(f"{scheme or 'http'}://{rest}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if scheme not in ("", "http", "https") or not parts.hostname or port == -1 or parts.username is not None:
        raise ValueError(
            f"--address {address}: must be that of a Ray dashboard, http://HOST:{_PORT}, or HOST; "
            f"Ray's own addresses (ray://, port 6379) take no jobs"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    ours = port or (443 if scheme == "https" else _PORT)
    return f"{parts.scheme}://{host}:{ours}"


def _check_answers(address: str, url: str) -> None:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or _PORT), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ConnectionError(
            f"--address {address}: no Ray answers at {url} ({error.strerror or error}): is the cluster up, and its "
            "dashboard in reach? `ray dashboard cluster.yaml` opens a way to it, `kubectl port-forward` on Kubernetes"
        ) from error


def _connected(address: str, url: str) -> Any:
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with _environment(_NO_OVERRIDES):
            return JobSubmissionClient(url)
    except AuthenticationError as error:
        raise ValueError(f"--address {address}: {_refused(error)}") from error
    except (requests.RequestException, ConnectionError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(
            f"--address {address}: what answers at {url} is no Ray dashboard ({type(error).__name__}); the dashboard's "
            f"port is {_PORT} unless it was set otherwise, 6379 and 10001 are others of Ray's that take no jobs"
        ) from error


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Have Ray, in this process, find other values of environment variables for a while; None is not set."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _refused(error: Exception) -> str:
    token = f"{Path('~/.ray/auth_token')} here (or RAY_AUTH_TOKEN)"
    if "Authentication required" in str(error):
        return f"the cluster asks for a token and there is none: put the cluster's into {token}"
    return f"the cluster has another token than {token}: copy the cluster's into that file"


def _job(details: Any) -> SubmittedJob:
    out = (details.metadata or {}).get("out", "")
    started = (details.start_time or 0) / 1000
    status = str(getattr(details.status, "value", details.status))
    return SubmittedJob(details.submission_id, status, out, started, details.driver_exit_code, details.message or "")


DASHBOARD = "http://127.0.0.1:8265"
