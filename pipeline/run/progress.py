"""The progress of a run, as observers see it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.messages import Failure, ShardScore, WorkerInfo
from pipeline.records.journal import GroupKey


@dataclass
class RunProgress:
    """Counts of a run in progress, which the driver updates before it calls its observer.

    Attributes:
        phase: references, search or test.
        candidates_done: complete candidates, references and failed ones included, as in candidates.parquet.
        best: group -> largest sum of objectives so far.
        latest: the answers of this step.
        workers: the workers that have loaded.
    """

    phase: str = "references"
    candidates_done: int = 0
    shards_done: int = 0
    shards_evaluated: int = 0
    shards_asked: int = 0
    shards_expected: int = 0
    from_cache: int = 0
    failures: int = 0
    best: dict[GroupKey, float] = field(default_factory=dict)
    latest: Sequence[ShardScore | Failure] = ()
    workers: Sequence[WorkerInfo] = ()
    _first: tuple[float, int] | None = None  # time of the first answers, and their number

    def add(self, answers: Sequence[ShardScore | Failure], workers: Sequence[WorkerInfo]) -> None:
        """Count the answers of a step."""
        self.latest, self.workers = answers, workers
        self.shards_done += len(answers)
        self.shards_evaluated += len(answers)
        self.failures += sum(isinstance(answer, Failure) for answer in answers)
        if answers and self._first is None:
            self._first = time.monotonic(), len(answers)

    def add_cached(self, count: int) -> None:
        """Count shards that the score cache answered."""
        self.from_cache += count
        self.shards_done += count
        self.shards_asked += count

    @property
    def rate(self) -> float:
        """Shards evaluated a second since the first answers, before which workers were loading; 0 before them."""
        if self._first is None:
            return 0.0
        since, count = self._first
        return (self.shards_evaluated - count) / max(1e-9, time.monotonic() - since)

    @property
    def shards_total(self) -> int:
        """Shards in all, at most."""
        return max(self.shards_expected, self.shards_asked)
