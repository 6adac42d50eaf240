"""The actor of one reward: it holds the reward and the run's prompts, and scores completions that others made."""

import platform
import time

import numpy as np
import torch

from pipeline.loading.rewards import drawn, prompts_for, samples_of, scored_fingerprint
from pipeline.messages import ScoreRequest, ShardScore, WorkerInfo
from pipeline.spec.run import RunSpec
from pipeline.workers.worker import Fetch
from tasks.language.base import Sample
from tasks.language.rewards.loading import checked, load_reward
from tasks.registry import load_plugins
from tasks.stats import Stats


class RewardWorker:
    """A plain class: the local pool calls it, Ray's actors wrap it."""

    def __init__(
        self, spec: RunSpec, task: str, prepared: str = "", name: str = "local", device_type: str = "cpu"
    ) -> None:
        """Load the reward that is `spec.tasks[task]`.

        Args:
            spec: the run.
            task: the reward's.
            prepared: the task's fingerprint as preparation found it; "" where there was none.
            name: unique within the pool.
            device_type: "cuda", the first GPU that this process may use, or "cpu".

        Raises:
            ValueError: it cannot be loaded, or is not what was prepared; the field is named.
        """
        torch.set_num_threads(max(1, int(spec.resources.per_reward.num_cpus)))
        load_plugins(spec.plugins)
        self.task, self.name, self.device = task, name, torch.device(device_type)
        source = spec.tasks[task]
        try:
            self._reward = load_reward(source.source, source.options, self.device)
        except ValueError as error:
            raise ValueError(f"tasks.{task}: {error}") from error
        prompts = prompts_for(spec)
        if prepared and scored_fingerprint(spec, prompts, self._reward.fingerprint) != prepared:
            raise ValueError(
                f"tasks.{task}: its reward, or the prompts, are not those that were prepared: all nodes must see the "
                "same files, and these must not change while the run goes on"
            )
        self._prompts, self._samples = prompts.splits, samples_of(spec)

    def info(self) -> WorkerInfo:
        """What it has loaded: the reward's fingerprint stands for all of it."""
        device = f"{self.device} ({platform.machine()})"
        return WorkerInfo(self.name, device, self._reward.fingerprint, {}, f"torch {torch.__version__}")

    def evaluate(self, request: ScoreRequest) -> ShardScore:
        """Score one shard's completions, one float32 each.

        Raises:
            NonFiniteOutput: a score is NaN or infinite.
            ValueError: the reward gives another number of scores than of completions.
        """
        started = time.perf_counter()
        asked, made = request.request, request.completions
        prompts, _ = drawn(self._prompts[asked.split], self._samples, asked)
        samples = [Sample(prompt, text) for prompt, text in zip(prompts, made.texts, strict=True)]
        outcomes = checked(self.task, self._reward, samples)
        exact = outcomes.astype(np.float64)
        stats = Stats(len(outcomes), float(exact.sum()), float((exact * exact).sum()))
        return ShardScore(asked, stats, outcomes, made.alpha, (0.0, time.perf_counter() - started), self.name)


def make_scorer(
    name: str, spec: RunSpec, task: str, prepared: str = "", device_type: str = "cpu", fetch: Fetch | None = None
) -> RewardWorker:
    """What a Ray actor calls to make its scorer."""
    return RewardWorker(fetch(spec) if fetch else spec, task, prepared, name, device_type)
