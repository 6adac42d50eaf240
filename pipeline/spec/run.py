"""The spec of a run and the checks between its fields."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.parameters import require_known
from pipeline.spec.arena import Arena, with_arena
from pipeline.spec.arms import Arm, Select
from pipeline.spec.exhibits import Exhibits
from pipeline.spec.generation import Generation, is_reward_source, reward_defaults
from pipeline.spec.resources import Resources
from pipeline.spec.sources import BackboneSpec, Limits, Tasks
from pipeline.spec.task_names import check_names, tasks_of_objectives
from pipeline.spec.thresholds import Regress
from pipeline.spec.values import Count, ShortName, SpecModel

Name = Annotated[str, Field(pattern=r"^[\w][\w .,+()=-]*$"), ShortName]


ControlKind = Literal["uniform", "equal", "reversed"]


class Controls(SpecModel):
    """The matched controls of every LiNeS arm."""

    kinds: tuple[ControlKind, ...] = ()
    """equal: constants of equal mean and norm; uniform: also a dense grid of constants; reversed: mirrored depth."""
    constants: int = Field(21, ge=2, le=10_000)
    """Constants in the grid, from 0 to the arm's highest coefficient (at least 1); the arm's own values are added."""


def _as_kinds(value: object) -> object:
    return {"kinds": value} if isinstance(value, list) else value


#: Fields that only concern the use of a run's result: its report and later comparisons.
REPORTING_FIELDS = ("exhibits", "regress")
#: Fields that may change when a run is resumed.
FIELDS_OUTSIDE_RESULT = ("resources", *REPORTING_FIELDS)


class RunSpec(SpecModel):
    """A run: arms over the same backbone, experts and tasks."""

    name: Name
    """Name of the run and of its folder."""
    backbone: BackboneSpec
    """The model family and architecture."""
    base: str
    """The pre-trained checkpoint: embedded/base, a file, folder or URL, hf:OWNER/REPO, pretrained:TAG of open_clip."""
    experts: dict[Name, str] = Field(min_length=1)
    """Fine-tuned checkpoints or LoRA adapters by name: files, folders, URLs such as s3://bucket/x, or hf:OWNER/REPO."""
    tasks: Tasks = Field(min_length=1)
    """What is scored: on validation while searching, on test for the chosen candidates."""
    ood: Tasks = {}
    """Shifted data sets, scored on test only, for the chosen candidates."""
    generation: Generation | None = None
    """How completions are generated, if the tasks are rewards; all tasks then score the same completions."""
    targets: dict[str, str] = {}
    """Expert -> its task, if the names differ."""
    arena: Arena | None = None
    """Merge methods or edits times profiles over depth: arms of equal budget, ranked in the report."""
    arms: dict[Name, Arm] = Field({}, validate_default=True)
    """The models to compare: each arm is a row of the tables. At least one, or an arena."""
    controls: Annotated[
        Controls, BeforeValidator(_as_kinds, json_schema_input_type=tuple[ControlKind, ...] | Controls)
    ] = Controls()
    """[uniform, reversed], or a mapping."""
    select: Select = Select()
    """The objectives that choose a candidate on validation."""
    limits: Limits = {}
    """How many samples of each split to use, for tasks without their own limits."""
    shard_size: Count = 512
    """Samples in a shard, the unit that is sent to a worker, retried and cached; about a second of work is best."""
    seed: int = 0
    """Seed of the samplers."""
    plugins: tuple[str, ...] = ()
    """Python modules or files that register your own tasks and backbones; driver and workers import them."""
    resources: Resources = Resources()
    """Where the run is executed, and with how many workers."""
    exhibits: Exhibits = {}
    """Title -> table or figure at the start of the report."""
    regress: Regress = Regress()
    """When `lines regress` calls a difference from a baseline a regression."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        return with_arena(reward_defaults(data)) if isinstance(data, dict) else data

    @field_validator("arms")
    @classmethod
    def _at_least_one(cls, arms: dict[str, Arm], info: ValidationInfo) -> dict[str, Arm]:
        """Check the field, not the whole spec, so that the error comes with those of other fields."""
        if not arms and "arena" in info.data:  # an arena that is not valid has an error of its own
            raise ValueError("the spec needs at least one arm, or an arena")
        return arms

    @model_validator(mode="after")
    def _references(self) -> "RunSpec":
        _check_rewards(self)
        if "base" in self.experts:
            raise ValueError("experts.base: this name is taken by the pre-trained checkpoint; use another one")
        if both := set(self.tasks) & set(self.ood):
            raise ValueError(f"ood: names must differ from those of tasks, got {sorted(both)} in both")
        check_names("tasks", {name: task.source for name, task in self.tasks.items()}, _uses_of_tasks(self))
        for expert, task in self.targets.items():
            require_known(f"targets.{expert}", expert, self.experts, "expert")
            require_known(f"targets.{expert}", task, self.tasks, "task")
        for expert in self.experts:
            where = f"experts.{expert}: its task (or name it in `targets`)"
            require_known(where, self.target(expert), self.tasks, "task")
        for label, members in (self.arena.sets if self.arena else {}).items():
            for expert in members or ():
                require_known(f"arena.sets.{label}", expert, self.experts, "expert")
        edits = {f"arms.{name}.edit": arm.edit for name, arm in self.arms.items()}
        for field, names in {"arena.edit": self.arena.edit if self.arena else (), **edits}.items():
            for expert in names or ():
                require_known(field, expert, (*self.experts, "each_expert"), "expert")
        for name, arm in self.arms.items():
            named = {
                "experts": arm.experts or (),
                "merge.weights": arm.merge.weights if arm.merge else (),
            }
            for field, experts in named.items():
                for expert in experts:
                    require_known(f"arms.{name}.{field}", expert, self.experts, "expert")
        return self

    @property
    def has_rewards(self) -> bool:
        """Whether the run scores completions by a reward that is no accuracy."""
        return self.generation is not None and any(task.metric != "accuracy" for task in self.tasks.values())

    @property
    def draws(self) -> int:
        """Completions of each prompt, which count as one sample; 1 in other runs."""
        return self.generation.samples if self.generation else 1

    def target(self, expert: str) -> str:
        """Return the task that `expert` was fine-tuned on."""
        return self.targets.get(expert, expert)


def _uses_of_tasks(spec: "RunSpec") -> dict[str, list[str]]:
    """Return task -> the fields that name it; the checkpoint of an expert counts too if its path holds the name."""
    uses: dict[str, list[str]] = {}
    for expert, source in spec.experts.items():
        task = spec.target(expert)
        fields = [f"targets.{expert}" if expert in spec.targets else f"experts.{expert}"]
        uses.setdefault(task, []).extend(fields + [source] * (task in source))
    selects = {"select": spec.select, **{f"arms.{name}.select": arm.select for name, arm in spec.arms.items()}}
    for field, select in selects.items():
        for task in tasks_of_objectives(select.maximise if select else ()):
            uses.setdefault(task, []).append(field)
    for task in (*spec.regress.tasks, *(task for arm in spec.regress.arms.values() for task in arm.tasks)):
        uses.setdefault(task, []).append("regress")
    return uses


def _check_rewards(spec: "RunSpec") -> None:
    """Require that a run has `generation` if and only if its tasks are rewards.

    Raises:
        ValueError: if it mixes rewards with other tasks, or a field has no meaning in a run of rewards.
    """
    rewards = [name for name, task in spec.tasks.items() if is_reward_source(task.source)]
    for field, tasks in (("tasks", spec.tasks), ("ood", spec.ood)):
        if plain := [name for name, task in tasks.items() if task.metric and not is_reward_source(task.source)]:
            raise ValueError(f"{field}.{plain[0]}.metric: only a reward declares it; leave it out")
    if spec.generation is None:
        if rewards:
            raise ValueError(f"generation: is required, as tasks.{rewards[0]} is a reward: it holds the prompts")
        return
    for name, task in spec.tasks.items():
        if name not in rewards:
            raise ValueError(
                f"tasks.{name}: must be a reward (reward/NAME or FILE.py:FUNCTION), as generation is set, "
                f"got {task.source!r}"
            )
        if task.limits:
            raise ValueError(f"tasks.{name}.limits: all rewards score the same prompts: set generation.prompts.limits")
    if spec.limits:
        raise ValueError("limits: all rewards score the same prompts: set generation.prompts.limits")
    if spec.ood:
        raise ValueError("ood: has no meaning in a run of rewards; leave it out")
    for name, exhibit in spec.exhibits.items():
        if exhibit.kind != "coefficients" and spec.has_rewards:
            raise ValueError(
                f"exhibits.{name}: shows accuracies, but the tasks of this run are rewards: its kind must be "
                f"coefficients, got {exhibit.kind}; the report always shows the fronts"
            )
    if spec.generation.samples > 1 and spec.generation.temperature == 0:
        raise ValueError(
            f"generation.samples: {spec.generation.samples} completions of a prompt are the same at temperature 0: "
            "set a temperature, or samples to 1"
        )
    if spec.shard_size % spec.generation.batch_size:
        raise ValueError(
            f"shard_size: must be a multiple of generation.batch_size, {spec.generation.batch_size}, so that shards "
            f"never change what is in a batch, got {spec.shard_size}"
        )
