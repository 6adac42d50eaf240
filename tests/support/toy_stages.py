"""Toy workers of a run with rewards, which Ray can pickle: words depend on the recipe, rewards count letters."""

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from toy import ToyEvaluator

from pipeline.messages import Completions, EvalRequest, ScoreRequest, ShardScore, WorkerInfo
from tasks.stats import Stats

TASKS = ("cats", "dogs")


def die_once(file: str) -> None:
    """Remove the file and end the process if the file exists."""
    if file and Path(file).exists():
        Path(file).unlink(missing_ok=True)
        os._exit(1)


class ToyWriter:
    """Completes with words that depend on the recipe.

    Args:
        name: the worker's.
        delay: seconds that each shard takes.
        die_at: a file; while it exists, the first request removes it and kills the process.
    """

    def __init__(self, name: str = "writer", delay: float = 0.0, die_at: str = "") -> None:
        self.name, self._delay, self._die_at = name, delay, die_at

    def info(self) -> WorkerInfo:
        return replace(ToyEvaluator().info(), name=self.name)

    def evaluate(self, request: EvalRequest) -> Completions:
        time.sleep(self._delay)
        die_once(self._die_at)
        words = (hashlib.blake2b(f"{request.recipe_id} {i}".encode()) for i in range(request.start, request.stop))
        return Completions(request, tuple(word.hexdigest() for word in words), 0.5, worker=self.name)


class ToyReward:
    """Counts a letter.

    Args:
        name: the scorer's.
        task: its first letter is counted.
        delay: seconds that each shard takes.
        die_at: as `ToyWriter`'s.
        broken: whether it cannot be loaded.
        deadly: a shard on which every process dies, or -1.
    """

    def __init__(
        self, name: str = "reward", task: str = "", delay: float = 0.0, die_at: str = "", broken: bool = False,
        deadly: int = -1,
    ) -> None:  # fmt: skip
        if broken:
            raise ValueError(f"tasks.{task}: no such label")
        self.name, self.task, self._delay, self._die_at, self._deadly = name, task, delay, die_at, deadly

    def info(self) -> WorkerInfo:
        return replace(ToyEvaluator().info(), name=self.name, fingerprint=self.task)

    def evaluate(self, request: ScoreRequest) -> ShardScore:
        time.sleep(self._delay)
        die_once(self._die_at)
        if request.request.shard == self._deadly:
            os._exit(1)
        assert request.request.task == self.task
        counts = np.array([text.count(self.task[0]) for text in request.completions.texts], np.float32)
        stats = Stats(len(counts), float(counts.sum()), float((counts**2).sum()))
        return ShardScore(request.request, stats, counts, request.completions.alpha, worker=self.name)
