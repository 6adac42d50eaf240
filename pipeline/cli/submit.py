"""The command `lines submit`: a run on a Ray cluster that goes on without this machine."""

import os
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.console import STOPPED, console, errors_for_people, plain, tell
from tasks.files.object_store import check_url, is_url

if TYPE_CHECKING:
    from pipeline.cluster.jobs.client import Job, Jobs
    from pipeline.spec.run import RunSpec

Address = Annotated[
    str, typer.Option(help="The cluster's dashboard: http://HOST:8265, HOST, or auto for this machine's Ray.")
]
DASHBOARD = "http://127.0.0.1:8265"
#: Where a cluster's head keeps the runs that are not said to lie elsewhere.
_RUNS = "~/lines-runs"
#: Names of secrets; short words count as whole parts of a name, so that AUTHOR is none.
_SECRET = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|CONNECTION_?STRING|_PWD(?![A-Z0-9])"
    r"|(?<![A-Z0-9])(PASS|SAS|AUTH)(?![A-Z0-9])",
    re.IGNORECASE,
)
_USER_OF_URL = re.compile(r"://[^/\s]*@")
#: As connection strings and signed URLs of Azure hold keys.
_KEY_OF_VALUE = re.compile(r"AccountKey=|SharedAccess|[?&]sig=", re.IGNORECASE)


def submit(
    spec: Annotated[Path, typer.Argument(help="The run's spec, a YAML file.", metavar="SPEC")],
    address: Address = DASHBOARD,
    out: Annotated[
        str | None,
        typer.Option(
            help="The run's folder: a URL, or a full path on the cluster's head.", show_default=f"{_RUNS}/NAME"
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers, instead of the spec's.")] = None,
    cache: Annotated[bool, typer.Option(help="Use scores of earlier runs, and keep these for later ones.")] = True,
    detach: Annotated[bool, typer.Option("--detach", help="Print the job's name and leave it to itself.")] = False,
    env: Annotated[
        list[str] | None, typer.Option(help="A variable that the job gets: NAME, as it is here, or NAME=VALUE.")
    ] = None,
    seen: Annotated[
        list[Path] | None, typer.Option(help="A folder that the cluster sees at the same path: not sent along.")
    ] = None,
    any_versions: Annotated[
        bool, typer.Option("--any-versions", help="Run with whatever versions of packages the cluster has.")
    ] = False,
) -> None:
    """Run SPEC on a Ray cluster: code, spec and small files are sent, progress is shown, Ctrl-C leaves the job running.

    The same command with the same --out goes on where a stopped job was. The exit status is that of the run.
    """
    with errors_for_people():
        from pipeline.versions import versions_here
        from pipeline.cluster.jobs.client import Jobs
        from pipeline.plan.plan import make_plan
        from pipeline.spec.user_code import tell_code
        from pipeline.spec.load import load_spec

        plan = make_plan(load_spec(spec))
        tell_code(plan.spec)
        arguments = ["--address", "auto", "--pool", "ray", *(["--workers", str(workers)] if workers else [])]
        arguments += [] if cache else ["--no-cache"]
        place, versions = _place(out, plan.spec.name), {} if any_versions else versions_here()
        told = {"versions": versions, "out": place, "arguments": arguments}
        name, variables, jobs = _job_name(plan.spec.name), _variables(env or []), Jobs(address)
        _send(jobs, _Sent(name, plan.spec, spec.parent, seen or []), told, variables)
        typer.echo(f"job: {name}\nrun: {place}" + (" (on the head)" if not is_url(place) else ""))
        if detach:
            typer.echo(f"lines jobs attach {name}{_at(address)}    lines jobs cancel {name}{_at(address)}")
            return
        raise typer.Exit(watched(jobs, name, address))


@dataclass(frozen=True)
class _Sent:
    """A job's name and spec, the folder of the spec, and paths that the cluster sees as they are."""

    name: str
    spec: "RunSpec"
    folder: Path
    seen: Sequence[Path]


def _send(jobs: "Jobs", sent: _Sent, told: dict[str, Any], variables: dict[str, str]) -> None:
    from pipeline.cluster.jobs.package import Origin, pack

    if jobs.in_the_clear:
        said = f"the token goes to {jobs.url} unencrypted: prefer https, or `ray dashboard cluster.yaml` (SSH)"
        console.print(f"[yellow]warning[/]: {said}", soft_wrap=True, highlight=False)
    with tempfile.TemporaryDirectory() as scratch:
        package = pack(sent.spec, Origin(sent.folder, sent.seen), told, Path(scratch))
        files = f" and {package.files / 2**20:.1f} MiB of files" if package.files else ""
        tell(f"sending code, spec{files} to {jobs.url}")
        jobs.submit(sent.name, str(told["out"]), package, variables)


def watched(jobs: "Jobs", name: str, address: str) -> int:
    """Show what the job says until it ends, or until Ctrl-C leaves it; the exit status that follows."""
    try:
        job = jobs.follow(name, lambda text: typer.echo(plain(text), nl=False))
    except KeyboardInterrupt:
        typer.echo(f"\nleft {name}, which goes on: lines jobs attach {name}{_at(address)}")
        return STOPPED
    typer.echo(_end(job))
    if job.exit_code is not None and job.exit_code >= 0:
        return job.exit_code
    return {"SUCCEEDED": 0, "STOPPED": STOPPED}.get(job.status, 1)


def _end(job: "Job") -> str:
    """What became of a job, and how to get at its run."""
    if job.status == "STOPPED":
        return f"{job.id}: cancelled; what was scored is kept: submit again with --out {shlex.quote(job.out)} to go on"
    if job.exit_code is None and job.message:
        return f"{job.id}: {job.status.lower()}: {plain(job.message)}"
    fetch = "" if is_url(job.out) else f" on the head; `ray rsync-down cluster.yaml '{job.out}' .` gets it"
    return f"{job.id}: {job.status.lower()}; the run: {job.out}{fetch}"


def _at(address: str) -> str:
    return "" if address == DASHBOARD else f" --address {shlex.quote(address)}"


def _job_name(run: str) -> str:
    """Of the run's name and the time, with something that no other job of this second has."""
    words = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-") or "run"
    return f"{words}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _place(out: str | None, run: str) -> str:
    """Raises ValueError: a path in the job's own directory, which is gone when the job ends; a URL with a password."""
    out = f"{_RUNS}/{run}" if out is None else out
    if is_url(out):
        check_url(out)
    elif not out.startswith(("/", "~/")):
        raise ValueError(
            f"--out {out}: must be a URL (s3://, gs://) or a full path on the cluster's head, such as {_RUNS}/{run}"
        )
    return out


def _variables(given: list[str]) -> dict[str, str]:
    """Raises ValueError: not set here, or a secret by its name or value, which whoever sees the dashboard would see."""
    found = {"COLUMNS": str(console.width)}
    for text in given:
        name, equals, value = text.partition("=")
        if _SECRET.search(name):
            raise ValueError(
                f"--env {name}: looks like a secret, and a job's variables are shown on the dashboard: give it to the "
                "nodes themselves (an instance's role, a Kubernetes Secret, a file); see docs/security.md"
            )
        if not equals and name not in os.environ:
            raise ValueError(f"--env {name}: is not set here; set it, or write NAME=VALUE")
        found[name] = value if equals else os.environ[name]
        if _USER_OF_URL.search(found[name]):
            raise ValueError(
                f"--env {name}: has a user or a password in its URL, which the dashboard would show: take it out"
            )
        if _KEY_OF_VALUE.search(found[name]):
            raise ValueError(
                f"--env {name}: its value holds a key or a signature, which the dashboard would show: give it to the "
                "nodes themselves; see docs/security.md"
            )
    return found
