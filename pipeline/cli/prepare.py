"""The command `lines prepare`: fetch, check and decode the data of a spec, so that its run starts at once."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from pipeline.cluster.auth import use_token
from pipeline.console import console, user_errors
from pipeline.spec.load import load_spec
from pipeline.spec.run import RunSpec
from pipeline.spec.user_code import announce_code

if TYPE_CHECKING:  # torch takes two seconds to import, which `lines --help` need not wait for
    from pipeline.loading.spec_sources import SpecSources
    from tasks.base import TaskRequest
    from tasks.vision.classification import ImageTextBackbone
    from tasks.vision.decoded import Decode
    from tasks.vision.images import ImageSource
    from tasks.vision.preprocess import Preprocess


def prepare(
    spec: Annotated[Path, typer.Argument(help="The run's spec, a YAML file.", metavar="SPEC")],
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: auto, or HOST:PORT. Without it Ray starts here.")
    ] = None,
) -> None:
    """Fetch a spec's checkpoints and data, check and decode the data on all cores, and make its text heads.

    What is there is left as it is. A set that cannot be had keeps no other one waiting: what is missing, and where it
    belongs, is told at the end.
    """
    with user_errors("what has been fetched and decoded is kept; the same command goes on from there"):
        run = load_spec(spec)
        announce_code(run)
        if address is not None and run.resources.pool == "local":
            raise ValueError(f"--address {address}: the local pool joins no cluster: leave one of the two out")
        use_token(address)
        table, problems = _prepare(run, address)
        console.print(table)
        for problem in problems:
            console.print(f"[bold red]missing[/]: {escape(problem)}", soft_wrap=True, highlight=False)
        if problems:
            raise typer.Exit(2)


def _prepare(run: RunSpec, address: str | None) -> tuple[Table, list[str]]:
    import torch

    from pipeline.loading.missing import check_present, checkpoint_lines
    from pipeline.loading.model import load_model
    from pipeline.loading.spec_sources import SpecSources
    from tasks.base import TaskRequest
    from tasks.registry import load_plugins
    from tasks.vision.classification import image_text

    sources = SpecSources(run, run.experts)
    missing = sources.missing()
    if "base" in missing:  # without it nothing can be prepared, so everything that is missing is reported now
        check_present(run, sources, "not fetched yet, which comes once the base is there")
    load_plugins(run.plugins)
    backbone = image_text(load_model(run.backbone, sources.base, torch.device("cpu")).backbone)
    table = Table("task", "val", "test", "GB", "images/s")
    problems = [*checkpoint_lines(sources, missing), *_fetch_experts(sources, run.experts, missing)]
    with ExitStack() as stack:
        decoder = _decoder(run, address, stack)
        for name, task in {**run.tasks, **run.ood}.items():
            try:
                table.add_row(name, *_prepare_task(TaskRequest(name, task.source, {}, task.options), backbone, decoder))
            except ValueError as error:
                problems.append(f"{name}: {error}")
    return table, problems


def _fetch_experts(sources: "SpecSources", names: Iterable[str], missing: Collection[str]) -> Iterator[str]:
    """Fetch what the hub has of the experts; yield what is wrong with those that are not `missing` anyway."""
    for name in names:
        if f"experts.{name}" not in missing:
            try:
                sources.expert(name)
            except ValueError as error:
                yield str(error)


def _decoder(run: RunSpec, address: str | None, stack: ExitStack) -> "Callable[[], Decode]":
    """Start Ray when something is to be decoded, and not before."""

    @cache
    def start() -> "Decode":
        from tasks.vision.decoded import decode_here

        if run.resources.pool == "local":
            return decode_here
        from pipeline.cluster.decode_images import OBJECT_STORE, decode_with_ray
        from pipeline.cluster.session import local_ray

        stack.enter_context(local_ray(address=address, object_store=OBJECT_STORE))
        return decode_with_ray

    return start


def _prepare_task(
    request: "TaskRequest", backbone: "ImageTextBackbone", decoder: "Callable[[], Decode]"
) -> tuple[str, ...]:
    """Prepare one task; its row of the table."""
    from tasks.registry import TASKS
    from tasks.vision.classification import load_task
    from tasks.vision.decoded import prepared_folder

    rate = "ready"
    if request.source not in TASKS:
        source = _source(request, backbone.preprocess)
        if not prepared_folder(source, backbone.preprocess).exists():
            rate = _decode(request.name, source, backbone.preprocess, decoder())
    task = load_task(request, backbone)  # type: ignore[arg-type]
    val, test = task.num_samples("val"), task.num_samples("test")
    height, width = backbone.preprocess.size
    return f"{val:,}", f"{test:,}", f"{(val + test) * 3 * height * width / 1e9:.2f}", rate


def _source(request: "TaskRequest", preprocess: "Preprocess") -> "ImageSource":
    """The task's source, its files fetched where they are missing or not whole and something can fetch them."""
    from tasks.vision.classification import image_source
    from tasks.vision.decoded import prepared_folder
    from tasks.vision.published.catalogue import vision_set
    from tasks.vision.published.download import fetch
    from tasks.vision.published.files import can_fetch, files_there, root_of, vision_options
    from tasks.vision.published.formats.listing import FilesMissing
    from tasks.vision.published.sets import VisionSource

    try:
        source = image_source(request)
        if isinstance(source, VisionSource) and not prepared_folder(source, preprocess).exists():
            source.check()
        return source
    except FilesMissing as error:
        entry = vision_set(request.source.removeprefix("vision/"))
        options = vision_options(f"tasks.{request.name}.options", request.options)
        if not can_fetch(entry, options):
            raise
        if options.origin == "torchvision" and (there := files_there(entry, root_of(entry, options))):
            raise FilesMissing(f"{error}; or move {there[0]} away, and `lines prepare` fetches the set anew") from error
    console.print(f"{request.name}: fetching {request.source}", highlight=False, markup=False)
    fetch(entry, options)
    return image_source(request)


def _decode(name: str, source: "ImageSource", preprocess: "Preprocess", decode: "Decode") -> str:
    """Decode with a progress bar; images a second."""
    from tasks.vision.decoded import prepare

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    start = monotonic()
    with Bars(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(f"decoding {escape(name)}", total=None)
        found = prepare(source, preprocess, lambda done, total: bars.update(bar, completed=done, total=total), decode)
    return f"{sum(map(len, found.values())) / (monotonic() - start):,.0f}"
