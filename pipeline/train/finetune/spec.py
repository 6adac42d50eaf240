"""The spec of `lines finetune`: which models to train, from what, and how."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from pipeline.parameters import look_up, resolve
from pipeline.recipe import ParamValue
from pipeline.spec.load import read_mapping
from pipeline.spec.paths import resolve_model_paths
from pipeline.spec.resources import Resources
from pipeline.spec.sources import BackboneSpec, Limits, Tasks
from pipeline.spec.task_names import check_names
from pipeline.spec.validation import validate
from pipeline.spec.values import LARGEST_SEED, MOST, SpecModel
from pipeline.train.finetune.methods import METHODS

#: Families whose samples are texts.
TEXT_FAMILIES = ("causal", "seq2seq", "encoder")
_PART = r"[\w][\w.+-]*"
_Part = Annotated[str, Field(pattern=rf"^{_PART}$")]
_Path = Annotated[str, Field(pattern=rf"^{_PART}(/{_PART})*$")]


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How one model is trained, with a value for every field; see `FinetuneTraining`."""

    lr: float
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 128
    forward_size: int | None = None
    weight_decay: float = 0.1
    warm_up: float = 0.1
    label_smoothing: float = 0.0
    augment: str = "none"
    head: str | None = None
    seed: int = 0


class _Model(BaseModel):
    """Like `pipeline.spec.values.SpecModel`, whose subclasses are all parts of the spec of a run."""

    model_config = SpecModel.model_config


class FinetuneTraining(_Model):
    """How models are trained, for all of them, for a method or for one run; the more specific level wins."""

    lr: float | None = Field(None, gt=0)
    """Peak learning rate of AdamW; required."""
    steps: int | None = Field(None, ge=1, le=MOST)
    """Updates of the weights; this or `epochs` is required."""
    epochs: int | None = Field(None, ge=1, le=MOST)
    """Passes over the training samples; the last, smaller batch of a pass is skipped."""
    batch_size: int | None = Field(None, ge=1, le=MOST)
    """Images or texts an update; 128 by default, and all of them if there are fewer."""
    forward_size: int | None = Field(None, ge=1, le=MOST)
    """Of texts: how many of a batch go through the model at a time, which bounds the memory; all of them by default."""
    weight_decay: float | None = Field(None, ge=0)
    """Weight decay of AdamW; 0.1 by default."""
    warm_up: float | None = Field(None, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly, before it falls as a cosine; 0.1 by default."""
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    """Share of the target that is spread over all classes or tokens; 0 by default."""
    augment: Literal["none", "jitter", "crop"] | None = None
    """Of images: none; jitter (rotates, stretches and moves a little, for drawings); crop (random, as in open_clip)."""
    head: Literal["frozen", "own"] | None = None
    """Of an encoder. frozen: the task's own, of prompts or of a classifier; own: a new head is trained too."""
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED)
    """Seed of the order of samples, augmentation, dropout, new heads and the initial LoRA factors; 0 by default."""

    @model_validator(mode="after")
    def _one_length(self) -> "FinetuneTraining":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("exactly one of steps and epochs must be given")
        return self


class MethodEntry(_Model):
    """A fine-tuning method, applied to every task."""

    method: str | None = None
    """full, linear, exponential, half_frozen, last_block or lora; by default the name of the entry."""
    params: dict[str, float] = {}
    """Parameters of the method: `factor` of exponential, `rank` and `scale` of lora."""
    training: FinetuneTraining = FinetuneTraining()
    """Fields that override the spec's `training`."""


class RunEntry(_Model):
    """One model to train."""

    task: str
    """The task whose training samples are used."""
    method: str = "full"
    """As in `methods`."""
    params: dict[str, float] = {}
    """Parameters of the method."""
    training: FinetuneTraining = FinetuneTraining()
    """Fields that override the spec's `training`."""


class FinetuneSpec(_Model):
    """Models to train from one base: every method on every task, and single runs."""

    name: _Part
    """Names the folder: runs/NAME."""
    backbone: BackboneSpec
    """The model family and architecture; precision bfloat16 trains by autocast, on weights in float32."""
    base: str
    """The pre-trained checkpoint, as in the spec of a run."""
    tasks: Tasks = Field(min_length=1)
    """Tasks by name; their sources must have training images or rows."""
    methods: dict[_Part, MethodEntry] = {}
    """Each is applied to each task; the model is called METHOD/TASK."""
    runs: dict[_Path, RunEntry] = {}
    """More models, by name."""
    training: FinetuneTraining
    """How models are trained."""
    limits: Limits = {}
    """Validation images or texts to use of each task, unless the task sets its own limits."""
    checkpoint_every: int = Field(200, ge=1, le=MOST)
    """Steps between two checkpoints, at which validation is scored too."""
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the weights that are written."""
    plugins: tuple[str, ...] = ()
    """Python modules or files that register tasks and backbones of your own."""
    resources: Resources = Resources()
    """Where and with how many workers to train; each worker trains one model at a time."""

    @model_validator(mode="after")
    def _whole(self) -> "FinetuneSpec":
        if self.backbone.precision == "float16":
            raise ValueError("backbone.precision: must be float32 or bfloat16 to train; float16 gradients underflow")
        uses: dict[str, list[str]] = {}
        for name, entry in self.runs.items():
            uses.setdefault(entry.task, []).append(f"runs.{name}.task")
        check_names("tasks", {name: task.source for name, task in self.tasks.items()}, uses)
        for run in runs_of(self):
            _check_family(self.backbone.family, run)
        names = [run.name for run in runs_of(self)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"runs.{name}: this name is taken by a method and its task; use another one")
            if within := [n for n in names if n.startswith(f"{name}/")]:
                raise ValueError(f"runs.{name}: its folder would hold that of {within[0]}; use another name")
        if not names:
            raise ValueError("methods: give at least one, such as methods: {full: {}}, or name the models under runs")
        return self


@dataclass(frozen=True, slots=True)
class FinetuneRun:
    """One model to train, with a value for every choice.

    Attributes:
        name: of its folder, with slashes.
        task: name in the spec's tasks.
        method: name in METHODS.
        params: of the method, all of them.
        settings: of the training.
    """

    name: str
    task: str
    method: str
    params: Mapping[str, ParamValue]
    settings: FinetuneSettings

    @property
    def head_seed(self) -> int | None:
        """The seed of a new head that is trained with the encoder; None if the head is frozen."""
        return self.settings.seed if self.settings.head == "own" else None

    def to_json(self) -> dict[str, Any]:
        """Return everything but the name."""
        settings = asdict(self.settings)
        for name in ("head", "forward_size"):  # models of earlier versions have no such fields
            if settings[name] is None:
                del settings[name]
        return {"method": self.method, "params": dict(self.params), "training": settings}


def _check_family(family: str, run: FinetuneRun) -> None:
    """Refuse settings that the family does not have.

    Raises:
        ValueError: if there are; the model is named.
    """
    settings = run.settings
    if family in TEXT_FAMILIES and settings.augment != "none":
        raise ValueError(f"training.augment: changes images, got {settings.augment} of {run.name} for texts")
    if settings.forward_size is not None and family not in TEXT_FAMILIES:
        raise ValueError(f"training.forward_size: is for texts, got {settings.forward_size} of {run.name} for {family}")
    if settings.head is not None and family != "encoder":
        raise ValueError(f"training.head: is for backbone.family: encoder, got {family} ({run.name})")
    if settings.head == "own" and METHODS[run.method].low_rank:
        raise ValueError(
            f"training.head: an adapter holds no head, so own needs another method than {run.method} ({run.name}); "
            "use full, or head: frozen"
        )


def runs_of(spec: FinetuneSpec) -> list[FinetuneRun]:
    """Return every model of the spec: methods in their order, each over all tasks, then `runs`.

    Raises:
        ValueError: if a task, method or parameter is unknown, or a training lacks lr, or steps and epochs.
    """
    return list(_runs(spec))


def _runs(spec: FinetuneSpec) -> Iterator[FinetuneRun]:
    for name, entry in spec.methods.items():
        method, settings = entry.method or name, _settings(f"methods.{name}", spec.training, entry.training)
        params = _params(f"methods.{name}", method, entry.params)
        yield from (FinetuneRun(f"{name}/{task}", task, method, params, settings) for task in spec.tasks)
    for name, run in spec.runs.items():
        where = f"runs.{name}"
        look_up(spec.tasks, run.task, f"{where}.task")
        params = _params(where, run.method, run.params)
        yield FinetuneRun(name, run.task, run.method, params, _settings(where, spec.training, run.training))


def _params(where: str, method: str, given: Mapping[str, float]) -> dict[str, ParamValue]:
    declared = {p.name: p for p in look_up(METHODS, method, f"{where}.method").parameters}
    for name in given:
        look_up(declared, name, f"{where}.params of {method}")
    try:
        return resolve(declared.values(), given)
    except ValueError as error:
        raise ValueError(f"{where}.params.{error}") from error


def _settings(where: str, *levels: FinetuneTraining) -> FinetuneSettings:
    values: dict[str, Any] = {}
    for level in levels:
        own = level.model_dump(exclude_none=True)
        if own.keys() & {"steps", "epochs"}:  # the narrower level's length replaces the other kind of the wider one
            values = {k: v for k, v in values.items() if k not in ("steps", "epochs")}
        values |= own
    if "lr" not in values:
        raise ValueError(f"{where}.training.lr: must be given, there or in the spec's training")
    if not values.keys() & {"steps", "epochs"}:
        raise ValueError(f"{where}.training.steps: must be given (or epochs), there or in the spec's training")
    assert values.keys() <= {f.name for f in fields(FinetuneSettings)}
    return FinetuneSettings(**values)


def load_finetune_spec(path: Path) -> FinetuneSpec:
    """Read and check a spec; relative paths in it are resolved against its folder.

    Raises:
        SpecError: as `pipeline.spec.load.load_spec`.
    """
    spec = validate(FinetuneSpec, read_mapping(path, FinetuneSpec), str(path))
    return spec.model_copy(update=resolve_model_paths(spec, path.parent))
