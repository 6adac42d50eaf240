"""The frozen head of a task of images: of prompts, or fitted to the base's features of training images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.base import TaskRequest
from tasks.registry import near
from tasks.vision.backbones import FitsHeads, NamesClasses
from tasks.vision.decoded import Progress, prepare_train
from tasks.vision.fitted_heads import check_classes, head_kind
from tasks.vision.heads import Head, SamePrompts, check_templates
from tasks.vision.images import GroupedSource, ImageSource
from tasks.vision.packs import PackSource
from tasks.vision.preprocess import Preprocess
from tasks.vision.sources import FITTING_OPTIONS, image_source


@dataclass(frozen=True, slots=True)
class TaskHead:
    """A head and how its rows are the classes.

    Attributes:
        head: of the task.
        groups: rows of the head of each class, if a class has several; its logit is the largest of theirs.
        warnings: what a user should know of it.
    """

    head: Head
    groups: Sequence[Sequence[int]]
    warnings: Sequence[str] = ()


def prompted_head(request: TaskRequest, backbone: NamesClasses, source: ImageSource) -> TaskHead:
    """Make a head of the class names.

    Raises:
        ValueError: if an option is wrong, or two classes have the same prompts.
    """
    where = f"tasks.{request.name}.options"
    if wrong := [name for name in FITTING_OPTIONS if name in request.options]:
        raise ValueError(
            f"{where}.{wrong[0]}: is for backbone.family: vision, whose heads are fitted; leave it out: class names "
            "make this head"
        )
    templates = _strings(request, "templates", source.templates)
    check_templates(where, templates)
    try:
        head = backbone.head(source.class_names, templates)
    except SamePrompts as error:
        raise ValueError(f"tasks.{request.name}: {source.name}: {error}") from error
    embedded = isinstance(source, PackSource) and templates == list(source.templates)
    return TaskHead(head, _groups(source), [] if embedded else head.warnings())


def fitted_head(
    request: TaskRequest, backbone: FitsHeads, source: ImageSource, preprocess: Preprocess, progress: Progress | None
) -> TaskHead:
    """Fit a head to training images: the task's own, those of the pack it is shifted from, or of `fitted_on`.

    Raises:
        ValueError: if an option is wrong, there are no training images, a class has none, or no head fits them.
    """
    where = f"tasks.{request.name}.options"
    if "templates" in request.options:
        raise ValueError(
            f"{where}.templates: are for a text tower, which backbone.family: vision does not have: its heads are "
            "fitted to training images; leave it out"
        )
    kind = head_kind(f"{where}.classifier", request.options.get("classifier", "ridge"))
    other = _other_source(request, source)
    fitted = other or source
    try:
        images = prepare_train(fitted, preprocess, progress)
        names = list(fitted.class_names)
        if groups := _groups(fitted):
            names = [names[group[0]] for group in groups]
        check_classes(images.labels_N.tolist(), names)
    except ValueError as error:
        hint = "" if other else f"; or name a source that has the same classes in {where}.fitted_on"
        raise ValueError(f"tasks.{request.name}: the head is fitted to training images: {error}{hint}") from error
    try:
        head = backbone.fitted_head(images, len(names), kind, progress)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith("backbone.") else f"tasks.{request.name}: {text}") from error
    return TaskHead(head, ()) if other is None else _of_classes(where, head, names, source)


def _other_source(request: TaskRequest, source: ImageSource) -> ImageSource | None:
    """Return the source whose training images are used, unless it is the task's own."""
    name = request.options.get("fitted_on")
    if name is None:
        return source.parent() if isinstance(source, PackSource) else None
    where = f"tasks.{request.name}.options.fitted_on"
    if not isinstance(name, str):
        raise ValueError(f"{where}: must be a source of images such as embedded/letters, got {name!r}")
    try:
        return image_source(replace(request, source=name, options={}))
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix(f'tasks.{request.name}: ')}") from error


def _of_classes(where: str, head: Head, names: Sequence[str], source: ImageSource) -> TaskHead:
    """Select the rows of a head of another source by the names of the task's classes."""
    rows_of: Mapping[str, int] = {name: row for row, name in reversed(list(enumerate(names)))}
    for name in source.class_names:
        if name not in rows_of:
            raise ValueError(f"{where}.fitted_on: it has no class {name!r}; {near(name, names)}")
    rows = [rows_of[name] for name in source.class_names]
    assert head.bias_K is not None
    key = f"{head.key} {' '.join(map(str, rows))}"
    return TaskHead(Head(head.weights_KD[rows], key, bias_K=head.bias_K[rows]), _groups(source))


def _groups(source: ImageSource) -> Sequence[Sequence[int]]:
    return source.class_groups if isinstance(source, GroupedSource) else ()


def _strings(request: TaskRequest, name: str, default: Sequence[str]) -> Sequence[str]:
    value: Any = request.options.get(name, default)
    if isinstance(value, str) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"tasks.{request.name}.options.{name}: must be a list of strings, got {value!r}")
    return list(value)
