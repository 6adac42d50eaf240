"""The command `lines submit`: execute a run on a Ray cluster, independently of this machine."""

import os
import re
import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import Address, Cache, SpecPath, Workers
from pipeline.cluster.jobs.address import DASHBOARD
from pipeline.console import console, print_result, styled, user_errors
from pipeline.versions import comparable_versions

if TYPE_CHECKING:
    from pipeline.cluster.jobs.client import Jobs
    from pipeline.cluster.jobs.package import Origin
    from pipeline.spec.run import RunSpec

#: The folder on a cluster's head for runs without --out.
_RUNS = "~/lines-runs"
#: Names of secrets; short words match whole parts of a name only, so that AUTHOR is not one.
_SECRET = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|CONNECTION_?STRING|_PWD(?![A-Z0-9])"
    r"|(?<![A-Z0-9])(PASS|SAS|AUTH)(?![A-Z0-9])",
    re.IGNORECASE,
)
_USER_OF_URL = re.compile(r"://[^/\s]*@")
#: Connection strings and signed URLs of Azure contain keys.
_KEY_OF_VALUE = re.compile(r"AccountKey=|SharedAccess|[?&]sig=", re.IGNORECASE)


def submit(
    spec: SpecPath,
    address: Address = DASHBOARD,
    out: Annotated[
        str | None,
        typer.Option(
            help="The run's folder: a URL, or a full path on the cluster's head.", show_default=f"{_RUNS}/NAME"
        ),
    ] = None,
    workers: Workers = None,
    cache: Cache = True,
    detach: Annotated[bool, typer.Option("--detach", help="Print the job's name and do not follow the job.")] = False,
    env: Annotated[
        list[str] | None, typer.Option(help="A variable for the job: NAME, with its value here, or NAME=VALUE.")
    ] = None,
    seen: Annotated[
        list[Path] | None, typer.Option(help="A folder that the cluster sees at the same path; it is not sent.")
    ] = None,
    any_versions: Annotated[
        bool, typer.Option("--any-versions", help="Run with whatever versions of packages the cluster has.")
    ] = False,
) -> None:
    """Execute SPEC on a Ray cluster: code, spec and small files are sent; Ctrl-C leaves the job running.

    Rerun the command with the same --out to resume a run that was stopped. The exit status is that of the run.
    """
    from lines_sweep.running import plan_of
    from pipeline.cluster.jobs.client import Jobs
    from pipeline.cluster.jobs.follow import address_option, follow_job
    from pipeline.cluster.jobs.package import Origin
    from pipeline.spec.user_code import announce_code
    from tasks.files.object_store import is_url

    with user_errors():
        plan = plan_of(spec)
        announce_code(plan.spec)
        arguments = ["--address", "auto", "--pool", "ray", *(["--workers", str(workers)] if workers else [])]
        arguments += [] if cache else ["--no-cache"]
        place, versions = run_place(out, plan.spec.name), {} if any_versions else comparable_versions()
        job = {"versions": versions, "out": place, "arguments": arguments}
        name, variables, jobs = _job_name(plan.spec.name), job_variables(env or []), Jobs(address)
        _send(jobs, name, plan.spec, Origin(spec.parent, seen or []), job, variables)
        typer.echo(f"job: {name}\nrun: {place}" + (" (on the head)" if not is_url(place) else ""))
        if detach:
            option = address_option(address)
            typer.echo(f"lines jobs attach {name}{option}    lines jobs cancel {name}{option}")
            return
        raise typer.Exit(follow_job(jobs, name, address))


def _send(
    jobs: "Jobs", name: str, spec: "RunSpec", origin: "Origin", job: dict[str, Any], variables: dict[str, str]
) -> None:
    from pipeline.cluster.jobs.package import make_package

    if jobs.sends_token_unencrypted:
        text = f"the token goes to {jobs.url} unencrypted: prefer https, or `ray dashboard cluster.yaml` (SSH)"
        console.print(styled("yellow", "warning", f": {text}"), soft_wrap=True, highlight=False)
    with tempfile.TemporaryDirectory() as scratch:
        package = make_package(spec, origin, job, Path(scratch))
        files = f" and {package.size / 2**20:.1f} MiB of files" if package.size else ""
        print_result(f"sending code, spec{files} to {jobs.url}")
        jobs.submit(name, job["out"], package, variables)


def _job_name(run: str) -> str:
    """Return a name that sorts by time and is unique among the jobs of one second."""
    words = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-") or "run"
    return f"{words}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def run_place(out: str | None, run: str) -> str:
    """Return the run's folder.

    Raises:
        ValueError: if it is a path in the job's directory, which is removed with the job, or a URL with a password.
    """
    from tasks.files.object_store import check_url, is_url

    out = f"{_RUNS}/{run}" if out is None else out
    if is_url(out):
        check_url(out)
    elif not out.startswith(("/", "~/")):
        raise ValueError(
            f"--out {out}: must be a URL (s3://, gs://) or a full path on the cluster's head, such as {_RUNS}/{run}"
        )
    return out


def job_variables(options: list[str]) -> dict[str, str]:
    """Return the job's variables from the values of --env.

    Raises:
        ValueError: if one is not set here, or is a secret by its name or value: the dashboard shows variables.
    """
    variables = {"COLUMNS": str(console.width)}
    for option in options:
        name, equals, value = option.partition("=")
        value = value if equals else os.environ.get(name, "")
        for pattern, text, problem in (
            (_SECRET, name, "looks like a secret"),
            (_USER_OF_URL, value, "has a user or a password in its URL"),
            (_KEY_OF_VALUE, value, "its value holds a key or a signature"),
        ):
            if pattern.search(text):
                raise ValueError(
                    f"--env {name}: {problem}, which the dashboard would show with the job's variables: give it to the "
                    "nodes themselves (an instance's role, a Kubernetes Secret, a file); see docs/internals/security.md"
                )
        if not equals and name not in os.environ:
            raise ValueError(f"--env {name}: is not set here; set it, or write NAME=VALUE")
        variables[name] = value
    return variables
