"""Scores that any run may use again: the same weights, data and numerics give the same score."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.append_log import AppendLog, LockedError, read_records
from pipeline.journal import Key, answer_record, parse_answer
from pipeline.messages import ShardScore


class ScoreCache:
    """Scores of one context, in one file of the cache's folder.

    The context is all that a score depends on beside its recipe, task and shard: the fingerprints of base, experts and
    tasks, the shard size, and the numerics (dtype, device type, versions). It names the file, so that a lookup
    can never cross contexts.
    """

    def __init__(self, folder: Path, context: str) -> None:
        """Read what earlier runs have left.

        Args:
            folder: the cache's folder, shared by runs.
            context: the whole context as text.
        """
        self._path = folder / "scores" / f"{hashlib.blake2b(context.encode(), digest_size=12).hexdigest()}.jsonl"
        self._scores: dict[Key, ShardScore] = {}
        for record in read_records(self._path):
            answer = parse_answer(record.pop("record"), record)
            assert isinstance(answer, ShardScore)
            self._scores[answer.request.key] = answer

    def get(self, key: Key) -> ShardScore | None:
        """The score of (recipe id, task, split, shard), if one is known."""
        return self._scores.get(key)

    def add(self, scores: Iterable[ShardScore]) -> None:
        """Keep new scores; where another run is writing just now they are left out, which costs time, never truth."""
        new = [s for s in scores if s.request.key not in self._scores]
        if not new:
            return
        try:
            with AppendLog(self._path) as log:
                log.append([answer_record(s) for s in new])
        except LockedError:
            return
        self._scores.update((s.request.key, s) for s in new)


def default_folder() -> Path:
    """`$LINES_SWEEP_CACHE`, or `~/.cache/lines-sweep`."""
    return Path(os.environ.get("LINES_SWEEP_CACHE") or Path.home() / ".cache" / "lines-sweep")
