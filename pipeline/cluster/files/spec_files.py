"""Which files and folders of this machine a spec names, and the spec with other places in their stead."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cluster.files.bundle import BundleKind
from pipeline.spec.generation import is_reward_source
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from pipeline.spec.sources import TaskSpec
from tasks.files.cache import cache_root
from tasks.files.sources import Source
from tasks.registry import TASKS

#: Where a value stands in a spec: keys, and indices of lists.
FieldPath = tuple[str | int, ...]
_FOLDER = "local-dir:"
_EMBEDDED = "embedded/"


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file or folder, as a value of a spec names it.

    Attributes:
        path: where it is, absolute.
        kind: how much of a folder is read.
        below: the only part of the folder that is read.
        prefix: what stands before the path in the value.
        suffix: what stands behind it.
    """

    path: str
    kind: BundleKind
    below: str = "."
    prefix: str = ""
    suffix: str = ""


def named_files(spec: RunSpec) -> dict[FieldPath, NamedFile]:
    """All that `spec` names and that is on this machine's disk; what is installed everywhere or on a hub is not."""
    found: dict[FieldPath, NamedFile | None] = {
        ("base",): _named(spec.base, "model"),
        ("backbone", "model"): _architecture(spec.backbone.model),
    }
    found |= {("experts", name): _named(source, "model") for name, source in spec.experts.items()}
    found |= {("plugins", i): _named(name, "tree") for i, name in enumerate(spec.plugins) if name.endswith(".py")}
    found |= _options(("backbone",), spec.backbone.options)
    if spec.generation is not None:
        found["generation", "prompts", "source"] = _named(spec.generation.prompts.source, "model")
    for where, tasks in (("tasks", spec.tasks), ("ood", spec.ood)):
        for name, task in tasks.items():
            found |= dict(_of_task((where, name), task))
    return {place: named for place, named in found.items() if named is not None}


def _named(source: str, kind: BundleKind, prefix: str = "", suffix: str = "") -> NamedFile | None:
    """What a source names, None where it is no path; of embedded names, the models that were built here."""
    parsed = Source.parse(source)
    if parsed.kind not in ("path", "embedded"):
        return None
    path = Path(source).expanduser() if parsed.kind == "path" else cache_root() / "language" / parsed.name
    return NamedFile(str(path.absolute()), kind, ".", prefix, suffix) if path.exists() else None


def _architecture(model: str) -> NamedFile | None:
    """A path, or open_clip's local-dir:FOLDER; any other name is an architecture, whatever may be called like it."""
    if model.startswith(_FOLDER):
        return _named(model.removeprefix(_FOLDER), "model", prefix=_FOLDER)
    return _named(model, "model") if "/" in model or model.endswith(".json") else None


def _options(
    place: FieldPath, options: Mapping[str, Any], kind: BundleKind = "tree"
) -> dict[FieldPath, NamedFile | None]:
    """Options that are absolute paths: of any kind of loader, those of users too."""
    paths = {k: v for k, v in options.items() if isinstance(v, str) and (v.startswith(_EMBEDDED) or _absolute(v))}
    return {(*place, "options", name): _named(value, kind) for name, value in paths.items()}


def _absolute(value: str) -> bool:
    return Path(value).expanduser().is_absolute()


def _of_task(place: FieldPath, task: TaskSpec) -> Iterator[tuple[FieldPath, NamedFile | None]]:
    if is_reward_source(task.source):
        yield from _options(place, task.options, "model").items()
        file, _, function = task.source.rpartition(":")
        if file.endswith(".py"):
            yield (*place, "source"), _named(file, "tree", suffix=f":{function}")
        return
    yield from _options(place, task.options).items()
    if task.source.startswith("vision/"):
        yield (*place, "options", "root"), _published(task)
    elif not task.source.startswith(_EMBEDDED) and task.source not in TASKS:
        yield (*place, "source"), _named(task.source, "tree")


def _published(task: TaskSpec) -> NamedFile | None:
    """The part of the data's root that holds the files of one published set; None where they are not here.

    The run says so itself, where it is: another machine, as a cluster's head, may have them.
    """
    from tasks.vision.published.catalogue import (
        vision_set,  # it brings torch, which whoever only sends files does without
    )
    from tasks.vision.published.files import VISION_OPTIONS, find_files, root_of, vision_options
    from tasks.vision.published.formats.listing import FilesMissing

    entry = vision_set(task.source.removeprefix("vision/"))
    options = vision_options("options", {k: v for k, v in task.options.items() if k in VISION_OPTIONS})
    try:
        layout, _, _ = find_files(entry, options)
    except FilesMissing:
        return None
    return NamedFile(str(root_of(entry, options).absolute()), "tree", layout.place)


def moved(spec: RunSpec, places: Mapping[FieldPath, str]) -> RunSpec:
    """The spec with other values at `places`."""
    data: dict[str, Any] = spec.model_dump(mode="json")
    for (*above, last), value in places.items():
        at: Any = data
        for key in above:
            at = at[key]
        at[last] = value
    return parse_spec(data)
