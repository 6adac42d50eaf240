"""The commands `lines jobs list`, `attach` and `cancel`, for jobs that `lines submit` started on a cluster."""

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.common import Address, Json
from pipeline.cluster.jobs.address import DASHBOARD
from pipeline.console import console, folded_table, print_result, user_errors

jobs = typer.Typer(help="Jobs that `lines submit` started: list, attach, cancel.", no_args_is_help=True)
JobName = Annotated[str, typer.Argument(help="The job's name, as `lines submit` printed it.", metavar="JOB")]


@jobs.command("list")
def list_jobs(address: Address = DASHBOARD, as_json: Json = False) -> None:
    """Show the jobs of a cluster, the newest first."""
    from pipeline.cluster.jobs.client import Jobs

    with user_errors():
        found = Jobs(address).all()
        if as_json:
            print_result(json.dumps([asdict(job) for job in found], indent=2))
            return
        table = folded_table("job", "status", "started", "run")
        for job in found:
            started = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started)) if job.started else ""
            table.add_row(job.id, job.status.lower(), started, job.out)
        console.print(table)


@jobs.command()
def attach(job: JobName, address: Address = DASHBOARD) -> None:
    """Show a job's output from its beginning until the job ends; the exit status is that of its run."""
    from pipeline.cluster.jobs.client import Jobs
    from pipeline.cluster.jobs.follow import follow_job

    with user_errors():
        cluster = Jobs(address)
        cluster.get(job)
        raise typer.Exit(follow_job(cluster, job, address))


@jobs.command()
def cancel(job: JobName, address: Address = DASHBOARD) -> None:
    """Stop a job; what it has scored is kept, and a job with the same --out resumes the run."""
    from pipeline.cluster.jobs.client import Jobs

    with user_errors():
        stopped = Jobs(address).cancel(job)
        print_result(f"{job}: {'cancelled' if stopped else 'had ended already'}")
