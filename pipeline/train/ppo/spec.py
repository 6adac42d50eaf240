"""The spec of `lines ppo`: an SFT model, and policies that each learn one reward."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.parameters import look_up
from pipeline.spec.generation import Prompts, RewardSpec
from pipeline.spec.load import read_mapping
from pipeline.spec.paths import resolve_path, resolve_prompts, resolve_reward
from pipeline.spec.resources import Resources
from pipeline.spec.task_names import check_names
from pipeline.spec.validation import validate
from pipeline.spec.values import LARGEST_SEED, MOST, SpecModel

_NAME = r"^[\w][\w.+-]*$"
_Name = Annotated[str, Field(pattern=_NAME)]
Algorithm = Literal["ppo", "rloo", "grpo"]
#: Prompts of val on which models are measured, unless `prompts.limits` sets another number.
MEASURED = 64


class Lora(SpecModel):
    """Low-rank factors of linear layers, as in peft."""

    r: int = Field(16, ge=1, le=65_536)
    """Rank."""
    alpha: float = Field(32, gt=0)
    """The product of the factors is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of the factors' inputs in SFT; trl switches all dropout off while policies learn."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Modules that get factors, by the ends of their names; all-linear: every linear layer except the output layer."""


class Sft(SpecModel):
    """How the base learns to complete prompts like their references."""

    steps: int = Field(ge=1, le=MOST)
    """Updates of the weights."""
    batch_size: int = Field(8, ge=1, le=MOST)
    """Pairs of prompt and reference an update."""
    lr: float = Field(gt=0)
    """Peak learning rate of AdamW."""
    warm_up: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly, before it falls linearly to 0."""
    lora: Lora | None = Lora()
    """LoRA factors that are trained and then merged; null trains every weight."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Seed of the order of pairs, dropout and the initial LoRA factors."""
    checkpoint_every: int = Field(50, ge=1, le=MOST)
    """Updates from one checkpoint to the next; part of the result, as every segment between them has its own seed."""


class PpoTraining(SpecModel):
    """How policies are trained, for all or for one policy, which wins."""

    updates: int | None = Field(None, ge=1, le=MOST)
    """Batches of completions that are sampled, scored and learned from; required."""
    lr: float | None = Field(None, gt=0)
    """Learning rate of AdamW, constant; required."""
    batch_size: int | None = Field(None, ge=2, le=MOST)
    """Completions an update; 16 by default."""
    mini_batches: int | None = Field(None, ge=1, le=MOST)
    """Parts of a batch; each is a step of the optimiser; 2 by default."""
    epochs: int | None = Field(None, ge=1, le=MOST)
    """Passes over a batch; 2 by default."""
    micro_batch_size: int | None = Field(None, ge=1, le=MOST)
    """Completions that go through the model at once while it learns, to save memory; by default a mini-batch."""
    temperature: float | None = Field(None, gt=0)
    """Temperature of sampling; 1 by default."""
    lam: float | None = Field(None, ge=0, le=1)
    """For ppo: lambda of generalised advantage estimation; 1 by default."""
    samples_per_prompt: int | None = Field(None, ge=2, le=MOST)
    """For rloo and grpo: completions of the same prompt that are compared; 4 by default."""
    missing_eos_penalty: float | None = Field(None, ge=0)
    """Subtracted from the centred reward of a completion without an end-of-sequence token; 1 by default."""
    critic: Literal["small", "policy"] | None = None
    """For ppo. small (default): a new Llama of 2 blocks, width 128; policy: the SFT model with factors like `lora`."""
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED)
    """Seed of the order of prompts, sampling, and the initial weights of factors and critic; 0 by default."""


@dataclass(frozen=True, slots=True)
class PpoSettings:
    """How one policy is trained, with a value for every field; see `PpoTraining`."""

    updates: int
    lr: float
    batch_size: int = 16
    mini_batches: int = 2
    epochs: int = 2
    micro_batch_size: int | None = None
    temperature: float = 1.0
    lam: float = 1.0
    samples_per_prompt: int = 4
    missing_eos_penalty: float = 1.0
    critic: str = "small"
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of the optimiser in each update."""
        return self.epochs * self.mini_batches


class PolicyEntry(SpecModel):
    """One policy to train."""

    reward: str
    """The entry of `rewards` that it learns."""
    algorithm: Algorithm | None = None
    """By default the spec's."""
    training: PpoTraining = PpoTraining()
    """Fields that override the spec's `training`."""


class Kl(SpecModel):
    """How far policies may move from the SFT model, in nats a completion."""

    coef: float = Field(0.05, gt=0)
    """Price of a nat, in units of the centred reward; with a target, the initial price."""
    target: float | None = Field(None, gt=0)
    """The coefficient follows the KL so that it stays near this value (Ziegler et al. 2019, section 2.2)."""
    stop: float | None = Field(None, gt=0)
    """Training ends after the first update with a KL above this."""


class PpoSpec(SpecModel):
    """An SFT model from one base, and policies from it."""

    name: _Name
    """Names the folder: runs/NAME."""
    base: str
    """The language model: a folder, hf:OWNER/REPO or embedded/NAME."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the model's weights; factors, critic and optimiser state are in float32."""
    prompts: Prompts
    """Prompts to complete: train to learn from, val (64 unless `limits` sets another number) to measure the models."""
    max_new_tokens: int = Field(ge=1, le=MOST)
    """The longest completion, in tokens."""
    sft: Sft | None
    """How the SFT model is trained; null if the base is one."""
    rewards: dict[_Name, RewardSpec] = Field(min_length=1)
    """Rewards by name."""
    policies: dict[_Name, PolicyEntry] = {}
    """Policies by name; by default one for each reward, with its name."""
    algorithm: Algorithm = "ppo"
    """ppo: with a critic; rloo, grpo: several completions of a prompt are compared."""
    lora: Lora = Lora()
    """LoRA factors that policies learn; all other weights are the SFT model's."""
    training: PpoTraining = PpoTraining()
    """How policies are trained."""
    reward_centring: Literal["sft", "reference", "none"] = "sft"
    """sft: (reward - SFT model's mean) / its deviation; reference: minus the reference's reward too; none."""
    kl: Kl = Kl()
    """What keeps policies near the SFT model."""
    checkpoint_every: int = Field(5, ge=1, le=MOST)
    """Updates from one checkpoint to the next; part of the result, as every segment between them has its own seed."""
    resources: Resources = Resources()
    """Where and with how many workers to train; each worker trains one model at a time."""

    @model_validator(mode="after")
    def _whole(self) -> "PpoSpec":
        uses: dict[str, list[str]] = {}
        for name, entry in self.policies.items():
            uses.setdefault(entry.reward, []).append(f"policies.{name}.reward")
        check_names("rewards", {name: reward.source for name, reward in self.rewards.items()}, uses)
        runs_of(self)
        return self


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """One policy to train, with a value for every choice.

    Attributes:
        name: of its folder.
        reward: name in the spec's rewards.
        algorithm: ppo, rloo or grpo.
        settings: of the training.
    """

    name: str
    reward: str
    algorithm: Algorithm
    settings: PpoSettings

    def to_json(self) -> dict[str, Any]:
        """Return everything but the name."""
        return {"reward": self.reward, "algorithm": self.algorithm, "training": asdict(self.settings)}


def runs_of(spec: PpoSpec) -> list[PolicyRun]:
    """Return every policy of the spec.

    Raises:
        ValueError: if a reward is unknown, a training lacks lr or updates, or a batch cannot be divided into its parts.
    """
    entries = spec.policies or {name: PolicyEntry(reward=name) for name in spec.rewards}
    return [_run(spec, name, entry) for name, entry in entries.items()]


def _run(spec: PpoSpec, name: str, entry: PolicyEntry) -> PolicyRun:
    where = f"policies.{name}"
    look_up(spec.rewards, entry.reward, f"{where}.reward")
    algorithm = entry.algorithm or spec.algorithm
    values = {**spec.training.model_dump(exclude_none=True), **entry.training.model_dump(exclude_none=True)}
    for needed in ("updates", "lr"):
        if needed not in values:
            raise ValueError(f"{where}.training.{needed}: must be given, there or in the spec's training")
    settings = PpoSettings(**values)
    _check_parts(f"{where}.training", algorithm, settings)
    return PolicyRun(name, entry.reward, algorithm, settings)


def _check_parts(where: str, algorithm: str, settings: PpoSettings) -> None:
    size, parts = settings.batch_size, {"mini_batches": settings.mini_batches}
    if algorithm != "ppo":
        parts["samples_per_prompt"] = settings.samples_per_prompt
    for part, count in parts.items():
        if size % count:
            raise ValueError(f"{where}.batch_size: must be a multiple of {part}, {count}, got {size}")
    mini, micro = size // settings.mini_batches, settings.micro_batch_size
    if micro is not None and mini % micro:
        raise ValueError(f"{where}.micro_batch_size: must divide a mini-batch, {mini} completions, got {micro}")


def load_ppo_spec(path: Path) -> PpoSpec:
    """Read and check a spec; relative paths in it are resolved against its folder.

    Raises:
        SpecError: as `pipeline.spec.load.load_spec`.
    """
    spec = validate(PpoSpec, read_mapping(path, PpoSpec), str(path))
    folder = path.parent
    rewards = {name: resolve_reward(entry, folder) for name, entry in spec.rewards.items()}
    changes = {
        "base": resolve_path(spec.base, folder),
        "prompts": resolve_prompts(spec.prompts, folder),
        "rewards": rewards,
    }
    return spec.model_copy(update=changes)
