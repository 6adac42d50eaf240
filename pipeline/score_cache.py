"""Scores that any run may use again: the same weights, data and numerics give the same score."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.append_log import AppendLog, LockedError, read_records
from pipeline.journal import answer_record, parse_answer
from pipeline.messages import EvalRequest, ShardScore

#: Recipe id, task, split, first sample, end: shard 3 of another limit or shard size is another set of samples.
_Samples = tuple[str, str, str, int, int]


def _samples(request: EvalRequest) -> _Samples:
    return request.recipe_id, request.task, request.split, request.start, request.stop


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
        self._scores: dict[_Samples, ShardScore] = {}
        for record in read_records(self._path):
            answer = parse_answer(record.pop("record"), record)
            assert isinstance(answer, ShardScore)
            self._scores[_samples(answer.request)] = answer

    def get(self, request: EvalRequest) -> ShardScore | None:
        """The score of the very samples that `request` asks for, if it is known."""
        score = self._scores.get(_samples(request))
        return None if score is None else replace(score, request=request)

    def add(self, scores: Iterable[ShardScore]) -> None:
        """Keep new scores; where another run is writing just now they are left out, which costs time, never truth."""
        new = [s for s in scores if _samples(s.request) not in self._scores]
        if not new:
            return
        try:
            with AppendLog(self._path) as log:
                log.append([answer_record(s) for s in new])
        except LockedError:
            return
        self._scores.update((_samples(s.request), s) for s in new)
