"""The command `lines`."""

import atexit
import gc
import io
import logging
import os
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Annotated

import typer

from pipeline.cli.baseline import baseline
from pipeline.cli.completion import VARIABLE, complete
from pipeline.cli.dashboard import dashboard
from pipeline.cli.doctor import doctor
from pipeline.cli.export import export
from pipeline.cli.finetune import finetune
from pipeline.cli.history import history
from pipeline.cli.import_recipe import import_recipe
from pipeline.cli.init import demo, init
from pipeline.cli.inspect import inspect
from pipeline.cli.jobs import jobs
from pipeline.cli.merge import merge
from pipeline.cli.mirror import mirror
from pipeline.cli.plan import plan
from pipeline.cli.ppo import ppo
from pipeline.cli.prepare import prepare
from pipeline.cli.regress import regress
from pipeline.cli.report import report
from pipeline.cli.run import run
from pipeline.cli.runs import runs
from pipeline.cli.statistics import statistics
from pipeline.cli.submit import submit
from pipeline.cli.validate import schema, validate
from pipeline.console import ShownOnce, be_quiet, print_result
from pipeline.versions import installed_version
from tasks.cores import AFFINITY, permitted_cores

app = typer.Typer(
    name="lines",
    help="Choose how to edit or merge fine-tuned models: LiNeS sweeps, evaluated and compared with their controls.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
# In the order of the work: look, make, merge, search, read, compare, watch, on a cluster.
app.command("demo")(demo)
app.command("doctor")(doctor)
app.command("prepare")(prepare)
app.command("finetune")(finetune)
app.command("ppo")(ppo)
app.command("merge")(merge)
app.command("statistics")(statistics)
app.command("import")(import_recipe)
app.command("init")(init)
app.command("validate")(validate)
app.command("plan")(plan)
app.command("inspect")(inspect)
app.command("schema")(schema)
app.command("run")(run)
app.command("runs")(runs)
app.command("report")(report)
app.command("export")(export)
app.command("regress")(regress)
app.add_typer(baseline, name="baseline")
app.command("history")(history)
app.command("dashboard")(dashboard)
app.command("mirror")(mirror)
app.command("submit")(submit)
app.add_typer(jobs, name="jobs")


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Print results and errors only: no notes, no progress.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Also print what is logged as information.")] = False,
) -> None:
    if version:
        print_result(f"lines-sweep {installed_version('lines-sweep')}")
        raise typer.Exit
    if quiet:
        be_quiet()
    if verbose:
        logging.getLogger().setLevel(logging.INFO)


def main() -> None:
    """Run the command with warnings shown once, and with no more threads than a quota permits.

    Raises:
        SystemExit: at the end. Where nothing but a script's own lines called it, as `lines` does, the process may end
            here instead; a function that calls it, a profiler or a tracer goes on.
    """
    if VARIABLE in os.environ:
        complete(app)
    cores = permitted_cores()
    if cores.limit and cores.limit != AFFINITY:  # torch counts the cores of the affinity itself, but no quota
        os.environ.setdefault("OMP_NUM_THREADS", str(cores.permitted))
    shown = logging.StreamHandler()
    shown.addFilter(ShownOnce())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[shown])
    try:
        app()
    except SystemExit as ended:
        if "torch" in sys.modules and isinstance(ended.code, int | None) and _is_script(sys._getframe(1)):
            _leave(ended.code or 0)
        raise


def _is_script(frame: FrameType) -> bool:
    """Return whether a frame is the outermost of the process: nobody waits for it to return."""
    return frame.f_back is None


#: What holds text or bytes that are not in the file yet.
_WRITERS = (io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)


def _leave(code: int) -> None:
    """End the process as Python does, but for the teardown of modules.

    torch's takes 0.6 CPU seconds and reads 110 MB of its libraries; with what a run has imported it is a second. As at
    Python's own end, other threads are joined first, then exit handlers run (Ray's, multiprocessing's, loggers'), and
    the streams and files that are still open, of a user's code for example, are flushed.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # a closed pipe, of which Python's own end tells
        for found in gc.get_objects():
            if issubclass(type(found), _WRITERS) and not found.closed:
                found.flush()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # its descriptor was open when Python started
                stream.flush()
        os._exit(code)
