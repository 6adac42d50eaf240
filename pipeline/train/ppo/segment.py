"""A segment of a policy's training, from one checkpoint to the next: its inputs, and the log of its updates."""

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
    """Raised when the KL is above `kl.stop`: trl's PPOTrainer has no other way to end early."""


@dataclass
class Segment:
    """Updates that one trainer makes.

    Attributes:
        name: of the policy, for errors.
        spec: the spec of the command.
        run: the policy, with its settings.
        policy: the SFT model with the policy's factors.
        critic: for ppo; None for the others.
        tokenizer: of both.
        prompts: as many as the updates need.
        scorer: of the policy's reward.
        optimiser: of everything that learns.
        seed: of 32 bits, for all random numbers.
        updates: in this segment.
        coef: of the KL in the first update.
        log: rows of TRAINING of all updates so far, to which the segment adds its own.
        report: called after each update.
        use_cpu: whether to train on the CPU, not on a GPU.
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
    """Measures of an update from the trainer's log: `kl` in nats a completion, `entropy` in nats a token."""

    kl: float
    entropy: float


@dataclass
class UpdateLogger(TrainerCallback):
    """After each update, append a row to the log, set the next KL coefficient, and stop if the KL is too large."""

    segment: Segment
    read: Callable[[dict[str, float], float], Measures | None]
    set_coef: Callable[[float], None]
    _coef: float = field(init=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the first update's clock."""
        self._coef, self._since = self.segment.coef, time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Take what the trainer logs once an update.

        Raises:
            Stopped: if the KL is above `kl.stop`.
            ValueError: if it is not finite.
        """
        if not self.segment.scorer.raw:
            return  # the trainer's final log, of the whole segment
        scored = self.segment.scorer.take()
        found = self.read(logs or {}, scored["length"])
        if found is None:
            return
        self._append(found, scored)
        self._coef = next_coef(self._coef, found.kl, self.segment.spec.kl.target)
        self.set_coef(self._coef)
        stop = self.segment.spec.kl.stop
        if stop is not None and found.kl > stop:
            raise Stopped(f"kl {found.kl:.1f} above kl.stop {stop:g}")

    def _append(self, found: Measures, scored: Any) -> None:
        segment, now = self.segment, time.perf_counter()
        step = len(segment.log) + 1
        if not (math.isfinite(found.kl) and math.isfinite(found.entropy)):
            raise ValueError(
                f"{segment.name}: the KL is {found.kl:g} and the entropy {found.entropy:g} after update {step} of "
                f"{segment.run.settings.updates}: lower training.lr, and give another --out or delete the folder"
            )
        row = {
            "step": step,
            "episodes": step * segment.run.settings.batch_size,
            **scored,
            "kl": found.kl,
            "kl_coef": self._coef,
            "entropy": found.entropy,
            "seconds": now - self._since,
        }
        self._since = now
        segment.log.append(row)
        text = f"reward {row['reward']:.3f} KL {found.kl:.1f}"
        segment.report(TrainingStatus(step, segment.run.settings.updates, text))
