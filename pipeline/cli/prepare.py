"""The command `lines prepare`."""

import typer

from pipeline.cli.common import RayAddress, SpecPath
from pipeline.cluster.auth import use_token
from pipeline.console import console, folded_table, styled, user_errors


def prepare(spec: SpecPath, address: RayAddress = None) -> None:
    """Fetch the checkpoints and data of a spec, decode the data on all cores, and make its text heads.

    What is there is not fetched again. If a data set cannot be had, the others are prepared, and what is missing is
    listed at the end, with where it belongs.
    """
    with user_errors("what has been fetched and decoded is kept; rerun the same command to resume"):
        from pipeline.spec.load import load_spec
        from pipeline.spec.user_code import announce_code

        run = load_spec(spec)
        announce_code(run)
        run.resources.check_address(address)
        use_token(address)
        from pipeline.loading.fetch_data import fetch_data  # torch: not before the spec is known to be valid

        prepared, problems = fetch_data(run, address)
        table = folded_table("task", "val", "test", "GB", "images/s")
        for task in prepared:
            rate = "ready" if task.rate is None else f"{task.rate:,.0f}"
            table.add_row(task.name, f"{task.val:,}", f"{task.test:,}", f"{task.gigabytes:.2f}", rate)
        console.print(table)
        for problem in problems:
            console.print(styled("bold red", "missing", f": {problem}"), soft_wrap=True, highlight=False)
        if problems:
            raise typer.Exit(2)
