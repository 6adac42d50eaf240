"""Answers by request key, compact enough that a million shards fit in the driver's memory."""

import math
import struct
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.recipe import Recipe
from pipeline.records.outcomes import packed, unpacked
from tasks.stats import Stats

_Key = tuple[str, str, str, int]
_Place = tuple[str, str, int]
#: Samples, sum, sum of squares; alpha, seconds (rebuilding, evaluating), start, stop, memory, worker, whether there
#: are bits.
_HEAD = struct.Struct("<qdddddqqqi?")
_SUMS = struct.Struct("<qdd")


class Answers(MutableMapping[_Key, ShardScore | Failure]):
    """A dictionary of scores and failures that packs each score into bytes, with outcomes of 0 and 1 as bits.

    The score of a shard of 512 samples takes 2 kB as an object, most of it copies of what all shards of a candidate
    share; packed it takes 0.2 kB.

    Attributes:
        failures: the answers that are failures.
        recipes: recipe id -> recipe of the scores.
    """

    def __init__(self, answers: Mapping[_Key, ShardScore | Failure] | None = None) -> None:
        """Copy other answers."""
        self.failures: dict[_Key, Failure] = {}
        self._scores: dict[str, dict[_Place, bytes]] = {}
        self.recipes: dict[str, Recipe] = {}
        self._places: dict[_Place, _Place] = {}
        self._workers: dict[str, int] = {}
        self._names: list[str] = []
        # Notes, texts and margins (as bytes): few scores have them.
        self._extras: dict[_Key, tuple[Mapping[str, Any], tuple[str, ...], bytes | None]] = {}
        self._count = 0
        self.update(answers or {})

    def __len__(self) -> int:
        """Return the number of answers."""
        return self._count + len(self.failures)

    def __iter__(self) -> Iterator[_Key]:
        """Yield the keys of scores, by candidate, then of failures."""
        for recipe_id, places in self._scores.items():
            for place in places:
                yield recipe_id, *place
        yield from self.failures

    def __contains__(self, key: object) -> bool:
        """Return whether there is an answer."""
        assert isinstance(key, tuple)
        recipe_id, task, split, shard = key
        return (task, split, shard) in self._scores.get(recipe_id, ()) or key in self.failures

    def __setitem__(self, key: _Key, answer: ShardScore | Failure) -> None:
        """Store an answer over an earlier one."""
        if key in self:
            del self[key]
        if isinstance(answer, Failure):
            self.failures[key] = answer
            return
        recipe_id, task, split, shard = key
        place = task, split, shard
        self.recipes.setdefault(recipe_id, answer.request.recipe)
        self._scores.setdefault(recipe_id, {})[self._places.setdefault(place, place)] = self._packed(answer)
        self._count += 1
        margins = None if answer.margins is None else packed(answer.margins)
        if answer.note or answer.texts or margins is not None:
            self._extras[key] = answer.note, answer.texts, margins

    def __delitem__(self, key: _Key) -> None:
        """Remove an answer."""
        if key in self.failures:
            del self.failures[key]
            return
        recipe_id, task, split, shard = key
        del self._scores[recipe_id][task, split, shard]
        self._extras.pop(key, None)
        self._count -= 1

    def __getitem__(self, key: _Key) -> ShardScore | Failure:
        """Return an answer that equals the one stored."""
        if key in self.failures:
            return self.failures[key]
        recipe_id, task, split, shard = key
        data = self._scores[recipe_id][task, split, shard]
        n, total, squares, alpha, rebuilding, evaluating, start, stop, memory, worker, _ = _HEAD.unpack_from(data)
        request = EvalRequest(self.recipes[recipe_id], recipe_id, task, split, shard, start, stop)
        note, texts, _ = self._extras.get(key, ({}, (), None))
        stats, seconds, name = Stats(n, total, squares), (rebuilding, evaluating), self._names[worker]
        known = request, stats, _outcomes(data), alpha, seconds, name, note, texts, self._margins(key)
        return ShardScore(*known, memory=memory)

    def margins(self, recipe_id: str, places: Sequence[_Place]) -> npt.NDArray[np.float32] | None:
        """Return the margins of a candidate's shards in this order; None unless every shard has them."""
        parts = [part for place in places if (part := self._margins((recipe_id, *place))) is not None]
        return np.concatenate(parts) if parts and len(parts) == len(places) else None

    def _margins(self, key: _Key) -> npt.NDArray[np.float32] | None:
        data = self._extras.get(key, ({}, (), None))[2]
        return None if data is None else np.frombuffer(data, "<f4").astype(np.float32)

    def _packed(self, score: ShardScore) -> bytes:
        stats, request, outcomes = score.stats, score.request, score.outcomes
        bits = outcomes.dtype == np.bool_
        worker = self._workers.setdefault(score.worker, len(self._names))
        if worker == len(self._names):
            self._names.append(score.worker)
        sums = stats.n, stats.total, stats.squares
        head = _HEAD.pack(*sums, score.alpha, *score.seconds, request.start, request.stop, score.memory, worker, bits)
        return head + packed(outcomes)

    def stats(self, recipe_id: str, places: Sequence[_Place]) -> Stats | None:
        """Return the sums of a candidate's shards, added in this order; None unless every shard is scored."""
        scores = self._scores.get(recipe_id, {})
        count, total, squares = 0, 0.0, 0.0
        for place in places:
            data = scores.get(place)
            if data is None:
                return None
            n, one, square = _SUMS.unpack_from(data)
            count, total, squares = count + n, total + one, squares + square
        return Stats(count, total, squares) if places else None

    def seconds(self, recipe_id: str) -> float:
        """Return the time that workers took for all answers of a candidate: rebuilding its weights, and evaluating."""
        heads = map(_HEAD.unpack_from, self._scores.get(recipe_id, {}).values())
        return math.fsum(rebuilding + evaluating for *_, rebuilding, evaluating, _, _, _, _, _ in heads)

    def memory(self, recipe_id: str) -> int:
        """Return the most bytes that setting the weights of a candidate took; 0 if not known."""
        heads = map(_HEAD.unpack_from, self._scores.get(recipe_id, {}).values())
        return max((memory for *_, memory, _, _ in heads), default=0)

    def outcomes(self, recipe_id: str, places: Sequence[_Place]) -> npt.NDArray[Any] | None:
        """Return the outcomes of a candidate's shards in this order; None unless every shard is scored."""
        scores = self._scores.get(recipe_id, {})
        found = [data for place in places if (data := scores.get(place)) is not None]
        return np.concatenate([_outcomes(data) for data in found]) if found and len(found) == len(places) else None


def _outcomes(data: bytes) -> npt.NDArray[np.bool_] | npt.NDArray[np.float32]:
    head = _HEAD.unpack_from(data)
    return unpacked(data, head[-1], head[0], _HEAD.size)
