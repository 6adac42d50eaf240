"""Backbone and tasks of a spec: where a model and its data come from."""

from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from pipeline.spec.values import SpecModel


class BackboneSpec(SpecModel):
    """A model architecture and the precision it is evaluated in."""

    family: str
    """open_clip."""
    model: str
    """open_clip architecture such as ViT-B-32-quickgelu; embedded/tiny-vit; a model config's path; local-dir:FOLDER."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the evaluated weights; combining is always done in float32."""
    options: dict[str, Any] = {}
    """What the family's loader understands: for open_clip, activation and preprocess."""


Limits = dict[Literal["val", "test"], Annotated[int, Field(ge=1)]]


class TaskSpec(SpecModel):
    """A task with options of its own."""

    source: str
    """embedded/NAME, vision/NAME, a folder with one folder a class, or a registered task's name."""
    limits: Limits = {}
    """Samples to use of each split; all where left out."""
    options: dict[str, Any] = {}
    """What the task's loader understands: templates, batch_size; for folders class_names and val_fraction too."""


def _tasks(value: object) -> object:
    """Accept [fashion, data/cars, ...] and {cars: data/cars, ...} beside the full form."""
    if isinstance(value, list):
        if bad := [v for v in value if not isinstance(v, str)]:
            raise ValueError(f"a list of tasks holds names or folders; for options write a mapping, got {bad[0]!r}")
        names = [Path(v).name for v in value]
        if twice := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"task names must differ, got {sorted(twice)} twice: use a mapping of name to source")
        value = dict(zip(names, value, strict=True))
    if isinstance(value, dict):
        return {k: {"source": _task_source(v)} if isinstance(v, str) else v for k, v in value.items()}
    return value


def _task_source(value: str) -> str:
    """A bare name is one of the embedded tasks; MODULE:FUNCTION is a reward."""
    return value if "/" in value or ":" in value else f"embedded/{value}"


Tasks = Annotated[dict[Annotated[str, Field(pattern=r"^[\w][\w.+-]*$")], TaskSpec], BeforeValidator(_tasks)]


class ModelSpec(Protocol):
    """A model, the data that it meets, and the plug-ins that both may come from."""

    @property
    def backbone(self) -> BackboneSpec:
        """The model family and architecture."""
        ...

    @property
    def base(self) -> str:
        """The pre-trained checkpoint."""
        ...

    @property
    def tasks(self) -> dict[str, TaskSpec]:
        """Tasks by name."""
        ...

    @property
    def plugins(self) -> tuple[str, ...]:
        """Python modules or files to import first."""
        ...
