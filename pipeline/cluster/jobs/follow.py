"""Show a job's output until it ends."""

import shlex
from typing import TYPE_CHECKING

import typer

from pipeline.cluster.jobs.client import DASHBOARD
from pipeline.console import STOPPED, plain
from tasks.files.object_store import is_url

if TYPE_CHECKING:
    from pipeline.cluster.jobs.client import Jobs, SubmittedJob


def watched(jobs: "Jobs", name: str, address: str) -> int:
    """Show what the job says until it ends, or until Ctrl-C leaves it; the exit status that follows."""
    try:
        job = jobs.follow(name, lambda text: typer.echo(plain(text), nl=False))
    except KeyboardInterrupt:
        typer.echo(f"\nleft {name}, which goes on: lines jobs attach {name}{address_option(address)}")
        return STOPPED
    typer.echo(_end(job))
    if job.exit_code is not None and job.exit_code >= 0:
        return job.exit_code
    return {"SUCCEEDED": 0, "STOPPED": STOPPED}.get(job.status, 1)


def _end(job: "SubmittedJob") -> str:
    """What became of a job, and how to get at its run."""
    if job.status == "STOPPED":
        return f"{job.id}: cancelled; what was scored is kept: submit again with --out {shlex.quote(job.out)} to go on"
    if job.exit_code is None and job.message:
        return f"{job.id}: {job.status.lower()}: {plain(job.message)}"
    fetch = "" if is_url(job.out) else f" on the head; `ray rsync-down cluster.yaml '{job.out}' .` gets it"
    return f"{job.id}: {job.status.lower()}; the run: {job.out}{fetch}"


def address_option(address: str) -> str:
    """The option that names the cluster, for a command that a user is to copy; none for the default."""
    return "" if address == DASHBOARD else f" --address {shlex.quote(address)}"
