"""Fetch the checkpoints and data of a spec, and decode the data, before its run."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from time import monotonic

import torch

from pipeline.console import print_result, progress_bar
from pipeline.loading.missing import check_present, checkpoint_lines
from pipeline.loading.model import load_model
from pipeline.loading.spec_sources import SpecSources
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, TaskRequest
from tasks.files.cache import is_cached
from tasks.loading import load_task
from tasks.lora import ChecksPolicies
from tasks.plugins import load_plugins
from tasks.registry import TASKS
from tasks.vision.backbones import ImageBackbone, image_backbone
from tasks.vision.classification import image_preprocess
from tasks.vision.decoded import Decode, decode_here, prepare, prepared_folder
from tasks.vision.images import ImageSource
from tasks.vision.preprocess import Preprocess
from tasks.vision.published.catalogue import vision_set
from tasks.vision.published.download import fetch
from tasks.vision.published.files import can_fetch, files_there, root_of, vision_options
from tasks.vision.published.formats.listing import FilesMissing
from tasks.vision.published.sets import VisionSource
from tasks.vision.sources import image_source


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task whose data is ready.

    Attributes:
        name: as in the spec.
        val: validation samples.
        test: test samples.
        gigabytes: of the decoded images in memory.
        rate: images decoded a second; None if they were decoded before.
    """

    name: str
    val: int
    test: int
    gigabytes: float
    rate: float | None


def fetch_data(spec: RunSpec, address: str | None) -> tuple[list[PreparedTask], list[str]]:
    """Fetch checkpoints and data, decode the data and make text heads; a problem of one task does not stop the others.

    Args:
        spec: of the run.
        address: of the Ray cluster that decodes; None to use the cores of this machine.

    Returns:
        The tasks that are ready, and one line for each problem.

    Raises:
        ValueError: if the base is missing or is no checkpoint of the architecture.
    """
    sources = SpecSources(spec, spec.experts)
    missing = sources.missing()
    if "base" in missing:  # nothing can be prepared without it, so everything that is missing is reported now
        check_present(spec, sources, "not fetched yet, which comes once the base is there")
    load_plugins(spec.plugins)
    backbone = load_model(spec.backbone, sources.base, torch.device("cpu")).backbone
    if not isinstance(backbone, ChecksPolicies) or spec.generation is not None:
        image_backbone(backbone)
    prepared, problems = [], [*checkpoint_lines(sources, missing), *_fetch_experts(sources, spec.experts, missing)]
    with _decoder(spec.resources.pool, address) as decoder:
        for name, task in {**spec.tasks, **spec.ood}.items():
            request = TaskRequest(name, task.source, {}, task.options, test_only=name in spec.ood)
            try:
                prepared.append(_prepare_task(request, backbone, decoder))
            except ValueError as error:
                problems.append(f"{name}: {error}")
    return prepared, problems


def _fetch_experts(sources: SpecSources, names: Iterable[str], missing: Collection[str]) -> Iterator[str]:
    """Fetch what the hub has of the experts; yield what is wrong with those that are not `missing` anyway."""
    for name in names:
        if f"experts.{name}" not in missing:
            try:
                sources.expert(name)
            except ValueError as error:
                yield str(error)


@contextmanager
def _decoder(pool: str, address: str | None) -> Iterator[Callable[[], Decode]]:
    """Yield a function that returns how to decode; Ray is only started or joined when it is first called."""
    with ExitStack() as stack:

        @cache
        def start() -> Decode:
            if pool == "local":
                return decode_here
            from pipeline.cluster.decode_images import OBJECT_STORE, decode_with_ray
            from pipeline.cluster.session import local_ray

            stack.enter_context(local_ray(address=address, object_store=OBJECT_STORE))
            return decode_with_ray

        yield start


def _prepare_task(request: TaskRequest, backbone: Backbone, decoder: Callable[[], Decode]) -> PreparedTask:
    if not isinstance(backbone, ImageBackbone):  # texts are small: they are read again by every worker
        texts = load_task(request, backbone)
        return PreparedTask(request.name, texts.num_samples("val"), texts.num_samples("test"), 0.0, None)
    rate = None
    if request.source not in TASKS:
        preprocess = image_preprocess(request, backbone.preprocess)
        source = _fetch_images(request, preprocess)
        if not is_cached(prepared_folder(source, preprocess)):
            rate = _decode(request.name, source, preprocess, decoder())
    task = load_task(request, backbone)
    val, test = task.num_samples("val"), task.num_samples("test")
    height, width = backbone.preprocess.size
    return PreparedTask(request.name, val, test, (val + test) * 3 * height * width / 1e9, rate)


def _fetch_images(request: TaskRequest, preprocess: Preprocess) -> ImageSource:
    """Return the source of a task, after fetching files that are missing or incomplete, if they can be fetched."""
    try:
        source = image_source(request)
        if isinstance(source, VisionSource) and not is_cached(prepared_folder(source, preprocess)):
            source.check()
        return source
    except FilesMissing as error:
        entry = vision_set(request.source.removeprefix("vision/"))
        options = vision_options(f"tasks.{request.name}.options", request.options)
        if not can_fetch(entry, options):
            raise
        if options.origin == "torchvision" and (there := files_there(entry, root_of(entry, options))):
            raise FilesMissing(
                f"{error}; or move {there[0]} away, and `lines prepare` fetches the set again"
            ) from error
    print_result(f"{request.name}: fetching {request.source}")
    fetch(entry, options)
    return image_source(request)


def _decode(name: str, source: ImageSource, preprocess: Preprocess, decode: Decode) -> float:
    """Decode the images with a progress bar; return how many a second."""
    start = monotonic()
    with progress_bar() as report:
        decoded = prepare(source, preprocess, lambda done, total: report(f"decoding {name}", done, total), decode)
    return sum(map(len, decoded.values())) / (monotonic() - start)
