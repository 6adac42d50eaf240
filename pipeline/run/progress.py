"""Progress of a run, for observers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.messages import Failure, ShardScore, WorkerInfo
from pipeline.records.journal import GroupKey


@dataclass
class RunProgress:
    """What a person watching the run wants to know; the driver keeps it up to date."""

    phase: str = "references"
    candidates_done: int = 0
    shards_done: int = 0
    shards_evaluated: int = 0
    shards_asked: int = 0
    shards_expected: int = 0
    from_cache: int = 0
    failures: int = 0
    best: dict[GroupKey, float] = field(default_factory=dict)
    latest: Sequence[ShardScore | Failure] = ()  # what this very step was answered
    workers: Sequence[WorkerInfo] = ()
