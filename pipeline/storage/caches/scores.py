"""Scores that any run may use again: the same weights, data and numerics give the same score."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.messages import EvalRequest, Identity, ShardScore
from pipeline.records.answers import Answers
from pipeline.records.append_log import Record
from pipeline.records.journal import ShardKey, answer_record, parse_answer
from pipeline.storage.caches.local import LocalRecords
from pipeline.storage.caches.shared import SharedRecords

#: Raised whenever the same recipe comes to give other weights, or the same samples another score: what older programs
#: left is then not found.
_FORMAT = "2"

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
        name = hashlib.blake2b(context, digest_size=12).hexdigest()
        self._data = {name: task[0] for name, task in identity.tasks.items()}
        self._known = Answers()
        local = LocalRecords(folder / "scores" / f"{name}.jsonl", _BATCH)
        self._stores = (local, SharedRecords(f"scores/{name}", _TOGETHER))
        for store in self._stores:
            for score in store.read(_parse):
                self._known[score.request.key] = score

    def get(self, request: EvalRequest) -> ShardScore | None:
        """The answer to `request`, if it is known; that of a reward only where one of the run's has the completions."""
        score = self._found(request, self._data[request.task])
        if score is None or (request.task in self._rewards and not self._has_texts(request)):
            return None
        return replace(score, request=request)

    def _found(self, request: EvalRequest, data: str) -> ShardScore | None:
        found = self._known.get(_key(request, data))
        return found if isinstance(found, ShardScore) else None

    def _has_texts(self, request: EvalRequest) -> bool:
        return any(
            score is not None and score.texts for score in (self._found(request, d) for d in self._data.values())
        )

    def add(self, scores: Iterable[ShardScore]) -> None:
        """Keep new scores, for later runs once there are enough of them, or at the next `flush`."""
        records = []
        for score in scores:
            data = self._data[score.request.task]
            known = self._found(score.request, data)
            if known is None or (score.texts and not known.texts):
                filed = replace(score, request=_filed(score.request, data))
                self._known[filed.request.key] = filed
                records.append({**answer_record(score), "data": data})
        for store in self._stores:
            store.add(records)

    def flush(self) -> None:
        """Write what is new; what cannot be written may cost time, never truth."""
        for store in self._stores:
            store.flush()


def _parse(record: Record) -> ShardScore:
    """A score as it is filed here."""
    answer = parse_answer(record["record"], record)
    if not isinstance(answer, ShardScore):
        raise TypeError(f"expected a score, got a {record['record']}")
    return replace(answer, request=_filed(answer.request, record["data"]))


def _filed(request: EvalRequest, data: str) -> EvalRequest:
    _, task, _, shard = _key(request, data)
    return replace(request, task=task, shard=shard)


def _key(request: EvalRequest, data: str) -> ShardKey:
    """Under the fingerprint of its data, and its samples; neither the task's name nor the cut into shards counts."""
    return request.recipe_id, data, request.split, request.start << 32 | request.stop
