"""Scores that any run may use again: the same weights, data and numerics give the same score."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

from pipeline.append_log import Record, append_unless_locked, read_records
from pipeline.journal import answer_record, parse_answer
from pipeline.ledger import Identity
from pipeline.messages import EvalRequest, ShardScore
from pipeline.storage.shared_records import SharedRecords

#: Raised whenever the same recipe comes to give other weights, or the same samples another score: what older programs
#: left is then not found.
_FORMAT = "2"

#: Recipe id, the task's fingerprint, split, start, stop: neither a task's name nor the cut into shards is part of it.
_Key = tuple[str, str, str, int, int]

#: Scores written together: each write opens, locks and syncs the file; in the shared cache it makes an object.
_BATCH, _TOGETHER = 64, 2048


class ScoreCache:
    """Scores under one set of checkpoints and numerics (precision, device type, version of torch), in one file.

    These and the program's own `_FORMAT` name the file, so that a look-up can never cross them.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Read what earlier runs have left, those of other machines too where they share a cache.

        Args:
            folder: the cache's folder, shared by runs.
            identity: what this run's scores stand on.
        """
        self._rewards = {name for name, metric in identity.metrics.items() if metric == "reward"}
        context = f"{_FORMAT} {identity.fingerprint} {identity.numerics}".encode()
        self._path = folder / "scores" / f"{hashlib.blake2b(context, digest_size=12).hexdigest()}.jsonl"
        self._data = {name: task[0] for name, task in identity.tasks.items()}
        self._scores: dict[_Key, ShardScore] = {}
        self._unwritten: dict[_Key, ShardScore] = {}
        self._said: set[_Key] = set()
        self._shared = SharedRecords(f"scores/{self._path.stem}", _TOGETHER)
        for key, score in chain(map(_parse, read_records(self._path)), self._shared.read(_parse)):
            self._know({key: score})

    def get(self, request: EvalRequest) -> ShardScore | None:
        """The answer to `request`, if it is known; that of a reward only where one of the run's has the completions."""
        score = self._scores.get(_key(request, self._data[request.task]))
        if score is None or (request.task in self._rewards and not self._has_texts(request)):
            return None
        return replace(score, request=request)

    def _has_texts(self, request: EvalRequest) -> bool:
        return any(_key(request, data) in self._said for data in self._data.values())

    def _know(self, scores: Mapping[_Key, ShardScore]) -> None:
        self._scores |= scores
        self._said |= {key for key, score in scores.items() if score.texts}

    def add(self, scores: Iterable[ShardScore]) -> None:
        """Keep new scores, for later runs once there are enough of them, or at the next `flush`."""
        keyed = {_key(s.request, self._data[s.request.task]): s for s in scores}
        new = {k: s for k, s in keyed.items() if k not in self._scores or (s.texts and k not in self._said)}
        self._know(new)
        self._unwritten |= new
        self._shared.add(_record(key, score) for key, score in new.items())
        if len(self._unwritten) >= _BATCH:
            self._write()

    def flush(self) -> None:
        """Write what is new; where another run is writing just now it waits, which may cost time, never truth."""
        self._write()
        self._shared.flush()

    def _write(self) -> None:
        records = (_record(key, score) for key, score in self._unwritten.items())
        if self._unwritten and append_unless_locked(self._path, records):
            self._unwritten = {}


def _record(key: _Key, score: ShardScore) -> Record:
    return {**answer_record(score), "data": key[1]}


def _parse(record: Record) -> tuple[_Key, ShardScore]:
    answer = parse_answer(record["record"], record)
    if not isinstance(answer, ShardScore):
        raise TypeError(f"expected a score, got a {record['record']}")
    return _key(answer.request, record["data"]), answer


def _key(request: EvalRequest, data: str) -> _Key:
    return request.recipe_id, data, request.split, request.start, request.stop
