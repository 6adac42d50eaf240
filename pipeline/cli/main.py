"""The command `lines`."""

import logging
import os

import typer

from pipeline.cli.baseline import baseline
from pipeline.cli.dashboard import dashboard
from pipeline.cli.doctor import doctor
from pipeline.cli.export import export
from pipeline.cli.finetune import finetune
from pipeline.cli.history import history
from pipeline.cli.import_recipe import import_recipe
from pipeline.cli.jobs import jobs
from pipeline.cli.merge import merge
from pipeline.cli.mirror import mirror
from pipeline.cli.plan import plan
from pipeline.cli.ppo import ppo
from pipeline.cli.prepare import prepare
from pipeline.cli.regress import regress
from pipeline.cli.report import report
from pipeline.cli.run import run
from pipeline.cli.statistics import statistics
from pipeline.cli.submit import submit
from pipeline.cli.validate import schema, validate
from pipeline.console import ShownOnce
from tasks.cores import AFFINITY, permitted_cores

app = typer.Typer(
    name="lines",
    help="Choose how to edit or merge fine-tuned models: LiNeS sweeps, evaluated and compared with their controls.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run)
app.command("report")(report)
app.command("validate")(validate)
app.command("plan")(plan)
app.command("schema")(schema)
app.command("export")(export)
app.command("doctor")(doctor)
app.command("merge")(merge)
app.command("import")(import_recipe)
app.command("finetune")(finetune)
app.command("ppo")(ppo)
app.command("prepare")(prepare)
app.command("statistics")(statistics)
app.command("dashboard")(dashboard)
app.command("mirror")(mirror)
app.command("regress")(regress)
app.command("history")(history)
app.add_typer(baseline, name="baseline")
app.command("submit")(submit)
app.add_typer(jobs, name="jobs")


def main() -> None:
    """Run the command with warnings shown once, and with no more threads than a quota permits."""
    cores = permitted_cores()
    if cores.limit and cores.limit != AFFINITY:  # torch counts the cores of the affinity itself, but no quota
        os.environ.setdefault("OMP_NUM_THREADS", str(cores.permitted))
    shown = logging.StreamHandler()
    shown.addFilter(ShownOnce())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[shown])
    app()
