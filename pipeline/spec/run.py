"""The spec of a run: the pydantic models that say what may stand in it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from pipeline.parameters import near
from pipeline.plan.soups import check_lambdas
from pipeline.spec.exhibits import Exhibits
from pipeline.spec.generation import Generation, check_rewards, reward_defaults
from pipeline.spec.thresholds import Regress
from pipeline.spec.resources import Resources
from pipeline.spec.values import Alpha, Beta, Dimension, Lambdas, Model, ParamDimension, lowest

_NAME = r"^[\w][\w .,+()=-]*$"


class Scaling(Model):
    """lambda(depth) = alpha + beta * f(depth); alpha outside the residual blocks (equation 1, appendix A)."""

    function: str = "constant"
    """f: constant, linear, sqrt, quadratic, power, cosine or piecewise."""
    alpha: Alpha = 1.0
    """A number, a grid, a range, or "auto": equation 2 with the L1 norm (auto_l2: with L2)."""
    beta: Beta = 0.0
    """A number, a grid, a range, or "1 - alpha"."""
    params: dict[str, ParamDimension] = {}
    """Parameters of the function: `p` of power, `knots` of piecewise."""
    scale: Dimension = 1.0
    """Multiplies alpha and beta, at least 0: WiSE-FT's interpolation with the pre-trained weights, of any function."""

    @model_validator(mode="after")
    def _consistent(self) -> "Scaling":
        if lowest(self.scale) < 0:
            raise ValueError(f"scale: must be at least 0, got {lowest(self.scale):g}")
        if self.scale != 1.0 and isinstance(self.alpha, str):
            raise ValueError(f"scale: needs a numeric alpha to multiply, got alpha: {self.alpha}")
        if isinstance(self.beta, str) and isinstance(self.alpha, str):
            raise ValueError(f"beta: {self.beta!r} needs a numeric alpha, got alpha: {self.alpha}")
        if self.function == "constant" and self.beta != 0.0:
            raise ValueError("beta: a constant scaling has none; set alpha, or choose another function such as linear")
        return self


class Merge(Model):
    """How task vectors are combined, before any scaling."""

    method: str = ""
    """Merge method by name, such as sum, average, ties or consensus (docs/methods.md)."""
    params: dict[str, ParamDimension] = {}
    """Parameters of the method; consensus takes `tall_lambda: auto`, chosen for each task on validation."""
    weights: dict[str, Dimension] = {}
    """Coefficient of each expert, for `weighted`."""
    lambdas: Lambdas | None = None
    """Rewarded soups, in place of weights: points an edge of the simplex, the first of two weights, or lists."""
    of: str = ""
    """In place of a method: the arm above this one whose chosen merge is taken over, to be scaled otherwise."""

    @model_validator(mode="after")
    def _one_source(self) -> "Merge":
        if bool(self.method) == bool(self.of):
            raise ValueError("exactly one of method and of must be given")
        if self.of and (self.params or self.weights or self.lambdas is not None):
            raise ValueError(f"of: takes the parameters and weights of {self.of!r}; leave params and weights out")
        if self.lambdas is not None:
            if self.method != "weighted" or self.weights:
                raise ValueError("lambdas: are the weights of the method weighted; leave weights out")
            check_lambdas(self.lambdas)
        return self


class Search(Model):
    """Which candidates of an arm's space are tried."""

    sampler: str = "grid"
    """grid, random, qmc, tpe, gp, cmaes, nsga2, nsga3; or greedy: a greedy soup of the arm's experts."""
    trials: int | None = Field(None, ge=1)
    """Candidates to try (each expert of an edit has its own search); a grid needs none."""
    in_flight: int = Field(4, ge=1)
    """Candidates proposed before the first of them is scored; part of the result, not of the machine's size."""
    options: dict[str, Any] = {}
    """Options of the sampler."""


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Select(Model):
    """What decides, on validation, which candidate is chosen."""

    maximise: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = ("2 * target + control",)
    """Expressions over target, control, retained, mean, worst, accuracy, task["name"]: one, or several for a search."""


class Arm(Model):
    """One row of the paper's tables: a way to edit each expert, or to merge them all."""

    edit: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)] | None = None
    """`each_expert`, or the names of experts: each is edited, searched and chosen by itself."""
    merge: Annotated[Merge, BeforeValidator(lambda v: {"method": v} if isinstance(v, str) else v)] | None = None
    """A merge of all experts (or of `experts`): a method's name, or a mapping with its parameters."""
    experts: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The experts that a merge uses; all where left out."""
    scaling: Scaling = Scaling()
    """How the combined task vector is scaled over depth."""
    search: Search = Search()
    """How the space is searched."""
    select: Select | None = None
    """Overrides the run's `select`."""
    score: Literal["all", "targets"] = "all"
    """The tasks that are scored: all, or for the merge of a part of the experts only those of its experts."""
    test: Literal["chosen", "every"] = "chosen"
    """What is scored on test: the candidate that validation chose, or every one, for curves of which none is chosen."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Arm":
        if (self.edit is None) == (self.merge is None):
            raise ValueError("exactly one of edit and merge must be given")
        if self.merge is not None and self.merge.of and self.experts is not None:
            raise ValueError(f"experts: are those of {self.merge.of!r}, which this arm takes over; leave them out")
        if self.edit is not None and self.experts is not None:
            raise ValueError("experts: is for a merge; an edit names its experts itself, as in edit: [a, b]")
        if self.edit is not None and "each_expert" in self.edit and len(self.edit) > 1:
            raise ValueError(f"edit: each_expert stands alone, got {list(self.edit)}")
        for key, names in (("edit", self.edit or ()), ("experts", self.experts or ())):
            if twice := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(f"{key}: each expert may be named once, got {twice} more than once")
        if self.merge is not None and self.experts is not None:
            for name in self.merge.weights:
                _known("merge.weights", name, dict.fromkeys(self.experts), "expert of this arm")
        return self


class Backbone(Model):
    """The model family and architecture."""

    family: str
    """open_clip."""
    model: str
    """open_clip architecture such as ViT-B-32-quickgelu; embedded/tiny-vit; a model config's path; local-dir:FOLDER."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the evaluated weights; combining is always done in float32."""
    options: dict[str, Any] = {}
    """What the family's loader understands: for open_clip, activation and preprocess."""


Limits = dict[Literal["val", "test"], Annotated[int, Field(ge=1)]]


class TaskSpec(Model):
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


class Controls(Model):
    """The matched controls beside every LiNeS arm."""

    kinds: tuple[Literal["uniform", "reversed"], ...] = ()
    """uniform: constants of equal mean and of equal norm, and a dense curve of tuned ones; reversed: mirrored depth."""
    constants: int = Field(21, ge=2)
    """Constants tried, from 0 to the arm's highest coefficient (at least 1), beside its own values."""


#: Fields of a spec that only speak of what is done with a run's result: what its report opens with, and what is held
#: against it later.
USED_LATER = ("exhibits", "regress")
#: These, and where the run is executed: a run is not known by them.
NOT_OF_THE_RESULT = ("resources", *USED_LATER)


class RunSpec(Model):
    """A run: arms over the same backbone, experts and tasks."""

    name: Annotated[str, Field(pattern=_NAME)]
    """Names the run and its folder."""
    backbone: Backbone
    """The model family and architecture."""
    base: str
    """The pre-trained checkpoint: embedded/base, a file, folder or URL, hf:OWNER/REPO, pretrained:TAG of open_clip."""
    experts: dict[Annotated[str, Field(pattern=_NAME)], str] = Field(min_length=1)
    """Fine-tuned checkpoints or LoRA adapters by name: files, folders, URLs such as s3://bucket/x, or hf:OWNER/REPO."""
    tasks: Tasks = Field(min_length=1)
    """What is scored, on validation while searching, on test for what is chosen."""
    ood: Tasks = {}
    """Shifted sets: scored on test only, for what is chosen."""
    generation: Generation | None = None
    """How completions are made, where the tasks are rewards; every task is then a reward of the same completions."""
    targets: dict[str, str] = {}
    """Expert -> its task, where the names differ."""
    arms: dict[Annotated[str, Field(pattern=_NAME)], Arm] = Field(min_length=1)
    """What is compared."""
    controls: Annotated[Controls, BeforeValidator(lambda v: {"kinds": v} if isinstance(v, list) else v)] = Controls()
    """[uniform, reversed], or a mapping."""
    select: Select = Select()
    """What decides, on validation, which candidate is chosen."""
    limits: Limits = {}
    """Samples to use of each split, for every task that does not say otherwise."""
    shard_size: int = Field(512, ge=1)
    """Samples a shard: the unit that is sent to a worker, retried and cached; about a second of work."""
    seed: int = 0
    """Of the samplers."""
    plugins: tuple[str, ...] = ()
    """Python modules or files that register tasks and backbones of your own; imported by driver and workers."""
    resources: Resources = Resources()
    """Where and how wide it is executed."""
    exhibits: Exhibits = {}
    """Tables and figures that the report opens with, by title."""
    regress: Regress = Regress()
    """When `lines regress` calls a difference from a baseline a regression."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        return reward_defaults(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _references(self) -> "RunSpec":
        check_rewards(self)
        if "base" in self.experts:
            raise ValueError("experts.base: this name is taken by the pre-trained checkpoint; use another one")
        if both := set(self.tasks) & set(self.ood):
            raise ValueError(f"ood: names must differ from those of tasks, got {sorted(both)} in both")
        for expert, task in self.targets.items():
            _known(f"targets.{expert}", expert, self.experts, "expert")
            _known(f"targets.{expert}", task, self.tasks, "task")
        for expert in self.experts:
            _known(f"experts.{expert}: its task (or name it in `targets`)", self.target(expert), self.tasks, "task")
        for name, arm in self.arms.items():
            named = {
                "edit": [e for e in arm.edit or () if e != "each_expert"],
                "experts": arm.experts or (),
                "merge.weights": arm.merge.weights if arm.merge else (),
            }
            for field, experts in named.items():
                for expert in experts:
                    _known(f"arms.{name}.{field}", expert, self.experts, "expert")
        return self

    def target(self, expert: str) -> str:
        """The task that `expert` was fine-tuned on."""
        return self.targets.get(expert, expert)


def _known(where: str, name: str, names: dict[str, Any], what: str) -> None:
    if name not in names:
        raise ValueError(f"{where}: unknown {what} {name!r}{near(name, names)}")


def models() -> list[type[BaseModel]]:
    """Every model that the spec of a run is made of."""
    direct = Model.__subclasses__()
    found = direct + [below for model in direct for below in model.__subclasses__()]
    return [model for model in found if model.__module__.startswith("pipeline.spec.run")]
