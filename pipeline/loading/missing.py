"""What a spec names and this machine lacks: all of it is told at once, before anything large is read or downloaded."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath

from pipeline.checkpoints.sources import locate, locate_adapter
from pipeline.spec.run import RunSpec
from tasks.base import TaskRequest
from tasks.files.hub import hub_silence, out_of_reach
from tasks.files.models import nearby
from tasks.files.store_errors import UnreachableError
from tasks.vision.classification import image_source
from tasks.vision.clip.architectures import pretrained_source
from tasks.vision.published.files import FETCHED
from tasks.vision.published.formats.listing import FilesMissing

_PRETRAINED, _HUB = "pretrained:", "hf:"
#: More missing files than this in one folder or repository share a line.
_MOST_LINES = 5


def check_present(spec: RunSpec, fetched: str = FETCHED) -> None:
    """Look for every checkpoint and published data set; what the hub can still give counts as present.

    Args:
        spec: of the run.
        fetched: what to say of data sets that can be fetched.

    Raises:
        ValueError: some are missing: each is named, with what to do; many of one folder by the first of them.
    """
    data = [line.replace(FETCHED, fetched) for line in _missing_data(spec)]
    missing = [*data, *checkpoint_lines(spec, missing_checkpoints(spec))]
    if len(missing) > 1:
        raise ValueError("\n  ".join(["not all that the spec names is on this machine:", *missing]))
    if missing:
        raise ValueError(missing[0])


def missing_checkpoints(spec: RunSpec) -> dict[str, str]:
    """What to tell of each checkpoint that is not to be had, by its field, the base's first; nothing is downloaded.

    Where some could only come from the hub, and it gives no answer, "hub" says so first, once for all of them.
    """
    sources = _sources(spec)
    silence = hub_silence() if any(map(_is_hub, sources.values())) else None
    missing = {}
    for where, source in sources.items():
        if _is_hub(source) and silence is None:
            continue
        try:
            find_checkpoint(source, spec.backbone.model)
        except ValueError as error:
            missing[where] = f"{where}: {_alone(str(error)) if _is_hub(source) else error}"
    if any(_is_hub(sources[where]) for where in missing):
        return {"hub": out_of_reach(), **missing}
    return missing


def checkpoint_lines(spec: RunSpec, missing: Mapping[str, str]) -> list[str]:
    """What `missing_checkpoints` found, with one line for many files of one folder or repository."""
    sources = _sources(spec)
    places: dict[str, list[str]] = {}
    for where in missing:
        places.setdefault(_place(sources[where]) if where.startswith("experts.") else where, []).append(where)
    lines = []
    for place, fields in places.items():
        if len(fields) > _MOST_LINES:
            more = f"{fields[0]} and {len(fields) - 1} more of {place}"
            lines.append(missing[fields[0]].replace(fields[0], more, 1))
        else:
            lines += [missing[where] for where in fields]
    return lines


def _sources(spec: RunSpec) -> dict[str, str]:
    return {"base": spec.base, **{f"experts.{name}": source for name, source in spec.experts.items()}}


def _place(source: str) -> str:
    """The folder of a file, or the repository of the hub."""
    return "/".join(source.split("/")[:2]) if source.startswith(_HUB) else str(PurePath(source).parent)


def _alone(text: str) -> str:
    return text.removesuffix(f", and {out_of_reach()}")


def _is_hub(source: str) -> bool:
    return source.startswith((_PRETRAINED, _HUB))


def find_checkpoint(source: str, model: str) -> None:
    """Find a checkpoint's files, or fetch them from the hub.

    Raises:
        ValueError: they are not to be had.
    """
    if source.startswith(_PRETRAINED):
        pretrained_source(model, source.removeprefix(_PRETRAINED))
    elif locate_adapter(source) is None:
        locate(source)


def fetch_urls(sources: Iterable[str], report: Callable[[str, int, int], None]) -> None:
    """Bring here what URLs name; what cannot be had is told by `check_present`, all of it at once.

    Raises:
        UnreachableError: a store gives no answer: to ask it again for every checkpoint would take long.
    """
    for source in sources:
        try:
            nearby(source, lambda name, done, total: report(f"fetching {name}", done, total))
        except UnreachableError:
            raise
        except ValueError:
            continue


def _missing_data(spec: RunSpec) -> Iterator[str]:
    for where, tasks in (("tasks", spec.tasks), ("ood", spec.ood)):
        for name, task in tasks.items():
            if task.source.startswith("vision/"):
                try:
                    image_source(TaskRequest(name, task.source, {}, task.options))
                except FilesMissing as error:
                    yield f"{where}.{name}: {error}"
