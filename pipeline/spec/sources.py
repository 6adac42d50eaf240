"""The backbone and the tasks of a spec: where the model and its data come from."""

from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from pipeline.spec.values import Count, ShortName, SpecModel, repeated


class BackboneSpec(SpecModel):
    """A model architecture and the precision it is evaluated in."""

    family: str
    """open_clip, open_clip_classifier, vision, causal, seq2seq, encoder, or a backbone of a plug-in."""
    model: str
    """open_clip architecture such as ViT-B-32-quickgelu; embedded/tiny-vit; a model config's path; local-dir:FOLDER;
    of other families a folder of transformers, and of vision also timm/NAME."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the evaluated weights; task vectors are always combined in float32."""
    options: dict[str, Any] = {}
    """Options of the family: activation, preprocess and encoder_memory for open_clip; image_size, preprocess and
    pooling for vision; language models have a guide."""


Limits = dict[Literal["val", "test"], Count]
#: Start of the source of a task of lm-evaluation-harness.
LM_EVAL = "lm_eval/"
#: Start of the source of a published text task.
PUBLISHED_TEXT = "text/"


class TaskSpec(SpecModel):
    """A task with its limits and options."""

    source: str
    """embedded/NAME, vision/NAME, a folder with one folder a class or of rows of texts, text/NAME, lm_eval/NAME, or a
    registered task's name."""
    limits: Limits = {}
    """How many samples of each split to use; default: all."""
    metric: Literal["reward", "accuracy"] | None = None
    """accuracy: the values of a reward are accuracies in [0, 1], shown as per cent; default: as the source defines."""
    options: dict[str, Any] = {}
    """Options of the task's loader: templates and batch_size; for images in files also exif_orientation; for folders
    also class_names and val_fraction; for family vision classifier and fitted_on instead of templates."""


def _tasks(value: object) -> object:
    """Turn [fashion, data/cars, ...] and {cars: data/cars, ...} into the full form."""
    if isinstance(value, list):
        if bad := [v for v in value if not isinstance(v, str)]:
            raise ValueError(f"a list of tasks must hold names or folders, got {bad[0]!r}: write a mapping for options")
        names = [Path(v).name for v in value]
        if twice := repeated(names):
            raise ValueError(f"task names must differ, got {twice} twice: write a mapping of name to source")
        value = dict(zip(names, value, strict=True))
    if isinstance(value, dict):
        return {k: {"source": _task_source(v)} if isinstance(v, str) else v for k, v in value.items()}
    return value


def _task_source(value: str) -> str:
    """Take a bare name for an embedded task; MODULE:FUNCTION is a reward."""
    return value if "/" in value or ":" in value else f"embedded/{value}"


TaskName = Annotated[str, Field(pattern=r"^[\w][\w.+-]*$"), ShortName]
Tasks = Annotated[
    dict[TaskName, TaskSpec],
    BeforeValidator(_tasks, json_schema_input_type=list[str] | dict[TaskName, str | TaskSpec]),
]


class ModelSpec(Protocol):
    """The fields of a run or a fine-tuning that loading a model and its data needs."""

    @property
    def backbone(self) -> BackboneSpec:
        """The model family and architecture."""

    @property
    def base(self) -> str:
        """The pre-trained checkpoint."""

    @property
    def tasks(self) -> dict[str, TaskSpec]:
        """Tasks by name."""

    @property
    def plugins(self) -> tuple[str, ...]:
        """Python modules or files to import first."""
