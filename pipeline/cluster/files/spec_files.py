"""The files and folders of this machine that a spec names, and the spec with other paths in their place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cluster.files.bundle import Bundle, BundleKind, make_bundle
from pipeline.spec.generation import is_reward_source
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from pipeline.spec.sources import LM_EVAL, PUBLISHED_TEXT, TaskSpec
from tasks.files.cache import built_place
from tasks.files.sources import Source
from tasks.registry import TASKS

#: The path of a value in a spec: keys, and indices of lists.
FieldPath = tuple[str | int, ...]
_FOLDER = "local-dir:"
_EMBEDDED = "embedded/"


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file or folder that a value of a spec names.

    Attributes:
        path: absolute path.
        kind: how much of a folder is read.
        below: the only subfolder that is read.
        prefix: the value's text before the path.
        suffix: the value's text after the path.
    """

    path: str
    kind: BundleKind
    below: str = "."
    prefix: str = ""
    suffix: str = ""

    def bundle(self) -> Bundle:
        """List the files to send; see `make_bundle`."""
        return make_bundle(Path(self.path), self.kind, self.below)

    def value(self, path: str) -> str:
        """Return the spec's value with another path."""
        return f"{self.prefix}{path}{self.suffix}"


def named_files(spec: RunSpec) -> dict[FieldPath, NamedFile]:
    """Return what `spec` names on this machine's disk; embedded data and hub models are left out: all nodes have them.

    Both ways to a cluster use this list: `pipeline.cluster.jobs.package` and `pipeline.cluster.files.transfer`.
    """
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
    """Return the file that a source names, None if it is not a path; embedded names may be models built here."""
    parsed = Source.parse(source)
    if parsed.kind not in ("path", "embedded"):
        return None
    path = Path(source).expanduser() if parsed.kind == "path" else built_place(parsed.name)
    return NamedFile(str(path.absolute()), kind, ".", prefix, suffix) if path.exists() else None


def _architecture(model: str) -> NamedFile | None:
    """Return the file of a path or of open_clip's local-dir:FOLDER; any other name is an architecture, not a file."""
    if model.startswith(_FOLDER):
        return _named(model.removeprefix(_FOLDER), "model", prefix=_FOLDER)
    return _named(model, "model") if "/" in model or model.endswith(".json") else None


def _options(
    place: FieldPath, options: Mapping[str, Any], kind: BundleKind = "tree"
) -> dict[FieldPath, NamedFile | None]:
    """Return the options that are absolute paths, for all loaders, those of plug-ins included."""
    texts = {name: value for name, value in options.items() if isinstance(value, str)}
    return {
        (*place, "options", name): _named(value, kind)
        for name, value in texts.items()
        if value.startswith(_EMBEDDED) or Path(value).expanduser().is_absolute()
    }


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
    elif not task.source.startswith((_EMBEDDED, LM_EVAL, PUBLISHED_TEXT)) and task.source not in TASKS:
        yield (*place, "source"), _named(task.source, "tree")


def _published(task: TaskSpec) -> NamedFile | None:
    """Return the folder of one published data set; None if it is not here.

    That is not an error yet: another machine, such as a cluster's head, may have the files, else the run reports them.
    """
    from tasks.vision.published.catalogue import vision_set  # imports torch, which sending files does not need
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
    """Return the spec with other values at `places`."""
    data: dict[str, Any] = spec.model_dump(mode="json")
    for (*above, last), value in places.items():
        at: Any = data
        for key in above:
            at = at[key]
        at[last] = value
    return parse_spec(data)
