"""Scores that any run may use again: the same weights, data and numerics give the same score."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.messages import EvalRequest, Identity, ShardScore
from pipeline.recipe import OUTSIDE, Recipe
from pipeline.records.answers import Answers
from pipeline.records.append_log import Record
from pipeline.records.journal import ShardKey, answer_record, parse_answer
from pipeline.records.sample_order import PREFIX
from pipeline.storage.caches.records import CacheRecords
from tasks.files.shared_cache import shared_cache

#: Changed whenever a recipe would give other weights, or a sample another score: older scores are then not found.
FORMAT = "2"
_BATCH, _SHARED_BATCH = 64, 2048
_FOLDER = "scores"


def has_scores(folder: Path) -> bool:
    """Return whether a run might find a score: whether any run has kept one here, or there is a shared cache."""
    return shared_cache("read") is not None or any((folder / _FOLDER).glob("*"))


class ScoreCache:
    """Scores under one set of checkpoints and numerics (precision, device type, version of torch).

    These and `FORMAT` name the file, so scores of other checkpoints or programs are never found.
    """

    def __init__(self, folder: Path, identity: Identity, of_completions: Iterable[str] = ()) -> None:
        """Read the scores of earlier runs, and of other machines if they share a cache.

        Args:
            folder: the local cache.
            identity: what this run's scores depend on.
            of_completions: tasks that score completions, besides those whose metric is a reward.
        """
        self._rewards = {name for name, metric in identity.metrics.items() if metric == "reward"} | {*of_completions}
        context = f"{FORMAT} {identity.fingerprint} {identity.numerics}".encode()
        name = hashlib.blake2b(context, digest_size=12).hexdigest()
        self._data = {name: task[0] for name, task in identity.tasks.items()}
        self._measured = bool(identity.calibration)
        self._known = Answers()
        self._records = CacheRecords(folder, f"{_FOLDER}/{name}", _BATCH, _SHARED_BATCH)
        for score in self._records.read(_parse):
            self._known[score.request.key] = score

    def get(self, request: EvalRequest) -> ShardScore | None:
        """Return the cached score of `request`; a reward counts only if one of the run's has the completions."""
        score = self._find(request, self._data_of(request))
        if score is None or (request.task in self._rewards and not self._has_texts(request)):
            return None
        return replace(score, request=request)

    def _data_of(self, request: EvalRequest) -> str:
        """Return the fingerprint of the task's data, marked where older scores of the recipe must not be found."""
        data = self._data[request.task]
        return f"{data} measured" if self._measured and _had_stored_statistics(request.recipe) else data

    def _find(self, request: EvalRequest, data: str) -> ShardScore | None:
        found = self._known.get(_key(request, data))
        return found if isinstance(found, ShardScore) else None

    def _has_texts(self, request: EvalRequest) -> bool:
        scores = (self._find(request, data) for data in self._data.values())
        return any(score is not None and score.texts for score in scores)

    def add(self, scores: Iterable[ShardScore]) -> None:
        """Add new scores; they are written when a batch is full, or by `flush`."""
        records = []
        for score in scores:
            data = self._data_of(score.request)
            known = self._find(score.request, data)
            if known is None or (score.texts and not known.texts):
                filed = replace(score, request=_filed(score.request, data))
                self._known[filed.request.key] = filed
                records.append({**answer_record(score), "data": data})
        self._records.add(records)

    def flush(self) -> None:
        """Write what is new."""
        self._records.flush()


def _had_stored_statistics(recipe: Recipe) -> bool:
    """Whether older programs scored an edit with the statistics of its file that is measured by now.

    They took an expert with alpha 1 and another lambda outside the blocks for an unscaled one, in models with batch
    normalisation. `FORMAT` stays, as no other score has changed.
    """
    plain = (recipe.method, recipe.scaling, recipe.alpha, recipe.then) == ("single", "constant", 1, ())
    return plain and OUTSIDE in dict(recipe.params) and not recipe.has_components


def _parse(record: Record) -> ShardScore:
    answer = parse_answer(record["record"], record)
    if not isinstance(answer, ShardScore):
        raise TypeError(f"expected a score, got a {record['record']}")
    return replace(answer, request=_filed(answer.request, record["data"]))


def _filed(request: EvalRequest, data: str) -> EvalRequest:
    """Return the request under which a score is kept in memory: its key is `_key`."""
    _, task, split, shard = _key(request, data)
    return replace(request, task=task, split=split, shard=shard)


def _key(request: EvalRequest, data: str) -> ShardKey:
    """Return a key of the data's fingerprint and the samples: neither the task's name nor the shard size counts.

    The places of an order's stages mean samples of one task of that order.
    """
    ordered = request.split.startswith(PREFIX)
    split = f"{request.split} {request.task}" if ordered else request.split
    return request.recipe_id, data, split, request.start << 32 | request.stop
