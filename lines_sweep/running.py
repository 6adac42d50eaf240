"""Execute specs: what `lines run` does, as functions."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from lines_sweep.arguments import named_arguments
from pipeline.cluster.auth import use_token
from pipeline.console import print_note, progress_console
from pipeline.plan.plan import Plan, make_plan
from pipeline.plan.spec_checks import check_ranking
from pipeline.spec.load import load_spec, parse_spec
from pipeline.spec.run import RunSpec
from pipeline.spec.user_code import announce_code
from pipeline.storage import run_folder

if TYPE_CHECKING:
    from lines_sweep.opened import Run
    from pipeline.cluster.connection import Connection

#: A spec: its file, its content as a mapping, or as it was validated.
Spec: TypeAlias = str | Path | Mapping[str, Any] | RunSpec
_T = TypeVar("_T")


@named_arguments({"address": "address", "out": "out"})
def run(
    spec: Spec,
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    pool: str | None = None,
    address: str | None = None,
    cache: bool = True,
) -> "Run":
    """Execute a spec, or resume it where it was stopped, and write tables and report.

    Args:
        spec: a YAML file, or what such a file holds; paths in a mapping are relative to the current folder.
        out: the run's folder, a path or a URL; by default runs/NAME.
        workers: number of workers, in place of the spec's.
        pool: "ray", or "local" for this process, in place of the spec's.
        address: a Ray cluster to join: "auto", or "HOST:PORT"; by default Ray starts on this machine.
        cache: whether to use scores of earlier runs, and to keep new scores for later runs.

    Returns:
        The finished run. Candidates that failed are in its `failures`.

    Raises:
        ValueError: if the spec is not valid, or a checkpoint or task is not as it says; the field is named.
        LockedError: if another run is writing in the folder.
        ConnectionError: if no Ray answers at the address.

    Example:
        >>> run = lines.run("examples/demo.yaml", pool="local")  # doctest: +SKIP
    """
    from lines_sweep.opened import open_run
    from pipeline.execute import ray_for  # torch and Ray: not before the spec is valid
    from pipeline.report.page import build

    plan = plan_of(spec, pool, workers)
    place = str(out) if out is not None else f"runs/{plan.spec.name}"
    use_token(address)
    announce_code(plan.spec)
    with ray_for([plan], address) as connection:
        run_plan(plan, place, build, connection, cache)
    return open_run(place)


def run_plan(plan: Plan, place: str, finish: Callable[[Path], _T], connection: "Connection", cache: bool) -> _T:
    """Execute a plan within `pipeline.execute.ray_for`, and return what `finish` makes of the run's folder.

    Args:
        plan: of the run.
        place: the run's folder, a path or a URL.
        finish: called with the folder when all is scored; files that it writes are uploaded to a URL.
        connection: to Ray, as `ray_for` yields it.
        cache: whether to use and keep scores of other runs.
    """
    from pipeline.execute import RunTarget, execute

    with run_folder.open_run(place, print_note) as opened:
        execute(plan, RunTarget(opened.folder, cache, opened.check, opened.upload), progress_console(), connection)
        return finish(opened.folder)


def plan_of(spec: Spec, pool: str | None = None, workers: int | None = None) -> Plan:
    """Read a spec and make its plan; `pool` and `workers` replace the spec's.

    Raises:
        ValueError: if it is not a valid spec; the file and the field are named.
    """
    found, source = _read(spec)
    found = found.model_copy(update={"resources": found.resources.changed(pool, workers)})
    try:
        check_ranking(found)
        return make_plan(found)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _read(spec: Spec) -> tuple[RunSpec, str]:
    if isinstance(spec, RunSpec):
        return spec, "spec"
    if isinstance(spec, Mapping):
        return parse_spec(dict(spec), folder=Path()), "spec"
    return load_spec(Path(spec)), str(spec)
