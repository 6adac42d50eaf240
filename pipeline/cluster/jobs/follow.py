"""Show a job's output until it ends."""

import shlex

import typer

from pipeline.cluster.jobs.address import DASHBOARD
from pipeline.cluster.jobs.client import Jobs, SubmittedJob
from pipeline.console import plain
from pipeline.signals import STOPPED
from tasks.files.object_store import is_url


def follow_job(jobs: Jobs, name: str, address: str) -> int:
    """Show a job's output until it ends or Ctrl-C leaves it; returns the exit status for the command."""
    try:
        job = jobs.follow(name, lambda text: typer.echo(plain(text), nl=False))
    except KeyboardInterrupt:
        typer.echo(f"\nleft {name}, which continues: lines jobs attach {name}{address_option(address)}")
        return STOPPED
    typer.echo(_outcome(job))
    if job.exit_code is not None and job.exit_code >= 0:
        return job.exit_code
    return {"SUCCEEDED": 0, "STOPPED": STOPPED}.get(job.status, 1)


def _outcome(job: SubmittedJob) -> str:
    """Describe how a job ended, and how to get its run."""
    if job.status == "STOPPED":
        return f"{job.id}: cancelled; what was scored is kept: submit again with --out {shlex.quote(job.out)} to resume"
    if job.exit_code is None and job.message:
        return f"{job.id}: {job.status.lower()}: {plain(job.message)}"
    fetch = "" if is_url(job.out) else f" on the head; `ray rsync-down cluster.yaml '{job.out}' .` gets it"
    return f"{job.id}: {job.status.lower()}; the run: {job.out}{fetch}"


def address_option(address: str) -> str:
    """Return the option that names the cluster in a command that a user copies; empty for the default."""
    return "" if address == DASHBOARD else f" --address {shlex.quote(address)}"
