"""A stretch of a policy's training: what the three trainers are given, and what is noted of each update."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import PeftModel
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerBase, TrainerCallback

from pipeline.train.job import TrainingStatus
from pipeline.train.ppo.kl import next_coef
from pipeline.train.ppo.reward_model import RewardScorer
from pipeline.train.ppo.spec import PolicyRun, PpoSpec
from tasks.language.base import Prompt


class Stopped(Exception):
    """The KL went above `kl.stop`: trl's PPOTrainer has no other way to end early."""


@dataclass
class Stretch:
    """Updates that one trainer makes.

    Attributes:
        name: of the policy, for errors.
        spec: that it stands in.
        run: the policy, with its settings.
        policy: the SFT model with the policy's factors.
        critic: of ppo; None for the others.
        tokenizer: of both.
        prompts: as many as the updates need.
        scorer: of the policy's reward.
        optimiser: of all that learns.
        seed: of 32 bits, for all that is drawn.
        updates: in this stretch.
        coef: of the KL in the first update.
        log: rows of TRAINING, of all updates so far; a stretch adds its own.
        report: called after each update.
        use_cpu: or else a GPU.
    """

    name: str
    spec: PpoSpec
    run: PolicyRun
    policy: PeftModel
    critic: nn.Module | None
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[Prompt]
    scorer: RewardScorer
    optimiser: Optimizer
    seed: int
    updates: int
    coef: float
    log: list[dict[str, Any]]
    report: Callable[[TrainingStatus], None]
    use_cpu: bool


@dataclass
class Measures:
    """What a trainer's own log says of an update; `kl` in nats a completion, `entropy` in nats a token."""

    kl: float
    entropy: float


@dataclass
class Noting(TrainerCallback):
    """After each update: note a row, set the coefficient of the next, stop where the KL is too large."""

    stretch: Stretch
    read: Callable[[dict[str, float], float], Measures | None]
    set_coef: Callable[[float], None]
    _coef: float = field(init=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the first update's clock."""
        self._coef, self._since = self.stretch.coef, time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Called by the trainer once an update.

        Raises:
            Stopped: the KL is above `kl.stop`.
            ValueError: it is no number.
        """
        if not self.stretch.scorer.raw:
            return  # the trainer's last words, on the whole stretch
        scored = self.stretch.scorer.take()
        found = self.read(logs or {}, scored["length"])
        if found is None:
            return
        self._note(found, scored)
        self._coef = next_coef(self._coef, found.kl, self.stretch.spec.kl.target)
        self.set_coef(self._coef)
        stop = self.stretch.spec.kl.stop
        if stop is not None and found.kl > stop:
            raise Stopped(f"kl {found.kl:.1f} above kl.stop {stop:g}")

    def _note(self, found: Measures, scored: Any) -> None:
        stretch, now = self.stretch, time.perf_counter()
        step = len(stretch.log) + 1
        if not (math.isfinite(found.kl) and math.isfinite(found.entropy)):
            raise ValueError(
                f"{stretch.name}: the KL is {found.kl:g} and the entropy {found.entropy:g} after update {step} of "
                f"{stretch.run.settings.updates}: lower training.lr, and give another --out or delete the folder"
            )
        row = {
            "step": step,
            "episodes": step * stretch.run.settings.batch_size,
            **scored,
            "kl": found.kl,
            "kl_coef": self._coef,
            "entropy": found.entropy,
            "seconds": now - self._since,
        }
        self._since = now
        stretch.log.append(row)
        text = f"reward {row['reward']:.3f} KL {found.kl:.1f}"
        stretch.report(TrainingStatus(step, stretch.run.settings.updates, text))
