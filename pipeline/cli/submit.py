"""The command `lines submit`: a run on a Ray cluster that goes on without this machine."""

import os
import re
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import Address
from pipeline.cluster.jobs.client import DASHBOARD
from pipeline.cluster.jobs.follow import address_option, watched
from pipeline.console import console, print_result, user_errors
from tasks.files.object_store import check_url, is_url

if TYPE_CHECKING:
    from pipeline.cluster.jobs.client import Jobs
    from pipeline.spec.run import RunSpec

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
    with user_errors():
        from pipeline.cluster.jobs.client import Jobs
        from pipeline.plan.plan import make_plan
        from pipeline.spec.load import load_spec
        from pipeline.spec.user_code import announce_code
        from pipeline.versions import versions_here

        plan = make_plan(load_spec(spec))
        announce_code(plan.spec)
        arguments = ["--address", "auto", "--pool", "ray", *(["--workers", str(workers)] if workers else [])]
        arguments += [] if cache else ["--no-cache"]
        place, versions = _place(out, plan.spec.name), {} if any_versions else versions_here()
        told = {"versions": versions, "out": place, "arguments": arguments}
        name, variables, jobs = _job_name(plan.spec.name), _variables(env or []), Jobs(address)
        _send(jobs, _Sent(name, plan.spec, spec.parent, seen or []), told, variables)
        typer.echo(f"job: {name}\nrun: {place}" + (" (on the head)" if not is_url(place) else ""))
        if detach:
            where = address_option(address)
            typer.echo(f"lines jobs attach {name}{where}    lines jobs cancel {name}{where}")
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
        print_result(f"sending code, spec{files} to {jobs.url}")
        jobs.submit(sent.name, str(told["out"]), package, variables)


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
                "nodes themselves (an instance's role, a Kubernetes Secret, a file); see docs/internals/security.md"
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
                "nodes themselves; see docs/internals/security.md"
            )
    return found
