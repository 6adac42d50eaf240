"""A client of Ray Jobs by HTTP: checks a cluster's address, submits, follows and cancels jobs."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.cluster.auth import has_token, use_token
from pipeline.cluster.jobs.address import PORT
from pipeline.cluster.jobs.package import Package
from tasks.registry import near

_SECONDS_TO_ANSWER = 10
#: Seconds between looks at a job; and characters per second that its log may cost, which is sent whole each time.
_INTERVAL, _MAX_CHARACTERS = 1.0, 100_000
#: Seconds for which the cluster may be out of reach before following is given up; the job continues.
_OUT_OF_REACH = 300.0
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
#: The key in a job's metadata that marks our jobs.
_MARK = "lines-sweep"
#: Ray prefers these variables to the address that it is given.
_NO_OVERRIDES = {"RAY_API_SERVER_ADDRESS": None, "RAY_ADDRESS": None}
#: Ray leaves out folders of some names (.git, .venv, venv, __pycache__) unless this is empty.
_NO_EXCLUDES = {"RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": ""}


@dataclass(frozen=True)
class SubmittedJob:
    """A job of `lines submit` on a cluster.

    Attributes:
        id: the name that `lines jobs attach` takes.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        out: the run's folder, as given at submission.
        started: seconds since 1970; 0 before it has started.
        exit_code: the run's; None before it has ended, or if it never ran.
        message: Ray's message about the status.
    """

    id: str
    status: str
    out: str
    started: float
    exit_code: int | None
    message: str

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.status in _ENDED


class Jobs:
    """The jobs of the cluster whose dashboard answers at `address`."""

    def __init__(self, address: str, client: Any = None) -> None:
        """Connect, unless `client`, a connected `JobSubmissionClient`, is given.

        Raises:
            ValueError: if `address` is not that of a dashboard, or the dashboard refuses the token.
            ConnectionError: if nothing answers there.
        """
        self.url = jobs_url(address)
        if client is None:
            _check_answers(address, self.url)
            use_token(address)
            client = _connected(address, self.url)
        self.client = client

    @property
    def sends_token_unencrypted(self) -> bool:
        """Whether the token crosses a network unencrypted."""
        parts = urlsplit(self.url)
        return has_token() and parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1")

    def submit(self, job_id: str, out: str, package: Package, env: Mapping[str, str]) -> None:
        """Send the package, unless the cluster has it already, and start the job.

        Raises:
            ConnectionError: if the cluster does not accept it.
        """
        from tasks.vision.published.files import JOB  # a slow import that other commands do not need

        # Without the safe path, files in the job's folder hide our code: a plug-in named tasks.py, for example. With it
        # Ray's PYTHONPATH applies: the packages that are sent come first, then that folder.
        variables = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", JOB: "1"}
        runtime_env = {
            "working_dir": str(package.working_dir),
            "py_modules": [str(module) for module in package.modules],
            "env_vars": {**variables, **env},
        }
        metadata, entrypoint = {_MARK: "1", "out": out}, "python3 -m pipeline.cli.job_entry"
        try:
            with environment(_NO_EXCLUDES):
                self.client.submit_job(
                    entrypoint=entrypoint, submission_id=job_id, runtime_env=runtime_env, metadata=metadata
                )
        except RuntimeError as error:
            raise ConnectionError(f"{self.url}: the cluster does not take the job: {error}") from error

    def all(self) -> list[SubmittedJob]:
        """Return the jobs of `lines submit`, the newest first, ended ones included."""
        jobs = [_job(details) for details in self.client.list_jobs() if (details.metadata or {}).get(_MARK)]
        return sorted(jobs, key=lambda job: -job.started)

    def get(self, job_id: str) -> SubmittedJob:
        """Return one job.

        Raises:
            ValueError: if no job has that name; near names are given.
        """
        jobs = {job.id: job for job in self.all()}
        if job_id not in jobs:
            raise ValueError(f"{job_id}: no such job on {self.url}; {near(job_id, jobs)}; `lines jobs list` shows them")
        return jobs[job_id]

    def cancel(self, job_id: str) -> bool:
        """Stop a job; returns False if it had ended already."""
        return not self.get(job_id).ended and bool(self.client.stop_job(job_id))

    def follow(self, job_id: str, show: Callable[[str], None]) -> SubmittedJob:
        """Pass a job's output to `show`, from its beginning until the job ends, also across a broken connection.

        The whole log is requested each time: Ray's own way to follow a log gives ten lines a second, and so needs
        minutes to catch up with a job of some hours.

        Raises:
            ConnectionError: if the cluster was out of reach for too long.
        """
        shown, reached = 0, time.monotonic()
        while True:
            try:
                job = self.get(job_id)  # before the log, so that the log of an ended job is complete
                log, reached = self.client.get_job_logs(job_id), time.monotonic()
            except (OSError, RuntimeError) as error:  # the errors of requests are OSErrors
                if time.monotonic() - reached > _OUT_OF_REACH:
                    raise ConnectionError(
                        f"{self.url}: out of reach ({error}); the job continues: `lines jobs attach {job_id}` shows it"
                    ) from error
                time.sleep(_INTERVAL)
                continue
            if new := log[shown:]:
                show(new)
            if job.ended:
                return job
            shown = len(log)
            time.sleep(max(_INTERVAL, len(log) / _MAX_CHARACTERS))


def jobs_url(address: str) -> str:
    """Return the URL of a dashboard from http(s)://HOST:PORT, HOST:PORT, HOST, or auto for this machine.

    Example:
        >>> jobs_url("10.0.0.1")
        'http://10.0.0.1:8265'

    Raises:
        ValueError: if it is none of these.
    """
    if address == "auto":
        address = "127.0.0.1"
    scheme, _, rest = address.rpartition("://")
    parts = urlsplit(f"{scheme or 'http'}://{rest}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if scheme not in ("", "http", "https") or not parts.hostname or port == -1 or parts.username is not None:
        raise ValueError(
            f"--address {address}: must be that of a Ray dashboard, http://HOST:{PORT}, or HOST; "
            f"Ray's own addresses (ray://, port 6379) take no jobs"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or (443 if scheme == 'https' else PORT)}"


def _check_answers(address: str, url: str) -> None:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or PORT), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ConnectionError(
            f"--address {address}: no Ray answers at {url} ({error.strerror or error}): is the cluster up, and its "
            "dashboard in reach? `ray dashboard cluster.yaml` opens a way to it, `kubectl port-forward` on Kubernetes"
        ) from error


def _connected(address: str, url: str) -> Any:
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    from pipeline.cluster.ray_private import JOB_LOGGERS  # imports Ray, which reads the token's mode

    for name in JOB_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with environment(_NO_OVERRIDES):
            return JobSubmissionClient(url)
    except AuthenticationError as error:
        raise ValueError(f"--address {address}: {_token_error(error)}") from error
    except (requests.RequestException, ConnectionError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(
            f"--address {address}: {url} answers but is not a Ray dashboard ({type(error).__name__}); the dashboard's "
            f"port is {PORT} unless it was set otherwise; 6379 and 10001 are other ports of Ray that take no jobs"
        ) from error


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables of this process for a while; None unsets. Others that change meanwhile are kept."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set(values)
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        os.environ.pop(name, None)
        os.environ.update({} if value is None else {name: value})


def _token_error(error: Exception) -> str:
    token = "~/.ray/auth_token here (or RAY_AUTH_TOKEN)"
    if "Authentication required" in str(error):
        return f"the cluster asks for a token and there is none: put the cluster's into {token}"
    return f"the cluster has another token than {token}: copy the cluster's into that file"


def _job(details: Any) -> SubmittedJob:
    out = (details.metadata or {}).get("out", "")
    started = (details.start_time or 0) / 1000
    status = str(getattr(details.status, "value", details.status))
    return SubmittedJob(details.submission_id, status, out, started, details.driver_exit_code, details.message or "")
