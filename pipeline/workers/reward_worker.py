"""The worker of one reward: holds the reward and the run's prompts, and scores completions of other workers."""

import platform
import time

import numpy as np
import torch

from pipeline.loading.loaded import Fetch
from pipeline.loading.rewards import drawn, is_accuracy, prompts_for, samples_of, scored_fingerprint
from pipeline.messages import ScoreRequest, ShardScore, WorkerInfo
from pipeline.spec.run import RunSpec
from tasks.language.base import Sample
from tasks.language.rewards.loading import checked, load_reward
from tasks.plugins import load_plugins
from tasks.stats import Stats


class RewardWorker:
    """An `Evaluator` of completions."""

    def __init__(
        self,
        name: str,
        spec: RunSpec,
        task: str,
        prepared: str = "",
        device_type: str = "cpu",
        fetch: Fetch | None = None,
    ) -> None:
        """Load the reward of `spec.tasks[task]`.

        Args:
            name: unique within the pool.
            spec: the run.
            task: the reward's task.
            prepared: the task's fingerprint at the run's preparation; "" skips the comparison.
            device_type: "cuda", the first GPU that this process may use, or "cpu".
            fetch: on a cluster whose nodes may lack the spec's files.

        Raises:
            ValueError: if the reward cannot be loaded, or is not the prepared one; the field is named.
        """
        spec = fetch(spec) if fetch else spec
        torch.set_num_threads(max(1, int(spec.resources.per_reward.num_cpus)))
        load_plugins(spec.plugins)
        self.task, self.name, self.device = task, name, torch.device(device_type)
        source = spec.tasks[task]
        try:
            self._reward = load_reward(source.source, source.options, self.device)
        except ValueError as error:
            raise ValueError(f"tasks.{task}: {error}") from error
        prompts = prompts_for(spec)
        if prepared and scored_fingerprint(spec, prompts, task, self._reward.fingerprint) != prepared:
            raise ValueError(
                f"tasks.{task}: its reward, or the prompts, differ from the prepared ones: all nodes must see the "
                "same files, and these must not change during the run"
            )
        self._prompts, self._samples = prompts.splits, samples_of(spec)
        self._accuracy = is_accuracy(spec, task)

    def info(self) -> WorkerInfo:
        """Return what this worker has loaded, as the reward's fingerprint."""
        device = f"{self.device} ({platform.machine()})"
        return WorkerInfo(self.name, device, self._reward.fingerprint, {}, f"torch {torch.__version__}")

    def evaluate(self, request: ScoreRequest) -> ShardScore:
        """Score one shard's completions, one float32 each.

        Raises:
            NonFiniteOutput: if a score is NaN or infinite.
            ValueError: if the number of scores is not the number of completions, or an accuracy is outside [0, 1].
        """
        started = time.perf_counter()
        shard, completions = request.request, request.completions
        prompts, _ = drawn(self._prompts[shard.split], self._samples, shard)
        samples = [Sample(prompt, text) for prompt, text in zip(prompts, completions.texts, strict=True)]
        outcomes = checked(self.task, self._reward, samples, self._accuracy)
        exact = outcomes.astype(np.float64)
        stats = Stats(len(outcomes), float(exact.sum()), float((exact * exact).sum()))
        return ShardScore(shard, stats, outcomes, completions.alpha, (0.0, time.perf_counter() - started), self.name)
