"""The answers of a run by candidate: shards are reduced in their order to one value a task."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.merging.methods import METHODS
from pipeline.messages import EvalRequest, Failure, Identity, ShardScore
from pipeline.recipe import Recipe
from pipeline.records.answers import Answers
from pipeline.records.journal import ShardKey
from pipeline.records.sample_order import SampleOrder
from tasks.stats import Stats, shards


class Ledger:
    """Answers by request key, and the requests that a candidate needs.

    Attributes:
        identity: the checkpoints, data and numerics of the run.
        answers: request key -> score or failure; callers add to it.
    """

    def __init__(self, identity: Identity, shard_size: int, answers: Mapping[ShardKey, ShardScore | Failure]) -> None:
        """Start from the answers of a journal; an `Answers` is used as it is, other mappings are copied."""
        self.identity = identity
        self._size = shard_size
        self.answers = answers if isinstance(answers, Answers) else Answers(answers)
        self._ids: dict[Recipe, str] = {}
        self._places: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
        self._orders: dict[str, SampleOrder] = {}

    def add_order(self, order: SampleOrder) -> None:
        """Know an order of samples: its name is then a split, whose shards are its stages."""
        self._orders[order.name] = order

    def recipe_id(self, recipe: Recipe) -> str:
        """Return the recipe's content id: of the run's checkpoints, and of its data if the method learns from them."""
        known = self._ids.get(recipe)
        if known is None:
            known = self._ids[recipe] = recipe.id(self._context(recipe))
        return known

    def _context(self, recipe: Recipe) -> str:
        if not METHODS[recipe.method].needs:
            return self.identity.fingerprint
        of_tasks = self.identity.tasks
        data = [f"{e} {of_tasks[task][0]} {of_tasks[task][1]}" for e, task in self.identity.targets.items()]
        return "\0".join([self.identity.fingerprint, self.identity.numerics, *data])

    def requests(self, recipe: Recipe, tasks: Iterable[str], split: str) -> list[EvalRequest]:
        """Return one request for each shard of each task."""
        recipe_id = self.recipe_id(recipe)
        return [self._request(recipe, recipe_id, place) for place in self._shards(tasks, split)]

    def missing(self, recipe: Recipe, tasks: Iterable[str], split: str, stage: int | None = None) -> list[EvalRequest]:
        """Return the requests that have no answer; with `stage`, those of one stage of an order."""
        recipe_id = self.recipe_id(recipe)
        wanted = (p for p in self._shards(tasks, split) if stage is None or p[2] == stage)
        places = [place for place in wanted if (recipe_id, *place) not in self.answers]
        return [self._request(recipe, recipe_id, place) for place in places]

    def _request(self, recipe: Recipe, recipe_id: str, place: tuple[str, str, int]) -> EvalRequest:
        task, split, shard = place
        if (order := self._orders.get(split)) is not None:
            start, stop = map(int, order.cuts[task][shard : shard + 2])
            rows = tuple(order.rows[task][start:stop].tolist())
            return EvalRequest(recipe, recipe_id, *place, start, stop, rows)
        start = shard * self._size
        return EvalRequest(recipe, recipe_id, *place, start, min(start + self._size, self._samples(task, split)))

    def _samples(self, task: str, split: str) -> int:
        _, val, test = self.identity.tasks[task]
        return val if split == "val" else test

    def _shards(self, tasks: Iterable[str], split: str) -> list[tuple[str, str, int]]:
        """Return (task, split, shard) of each shard of each task, in order."""
        return [place for task in tasks for place in self._shards_of(task, split)]

    def _shards_of(self, task: str, split: str) -> list[tuple[str, str, int]]:
        known = self._places.get((task, split))
        if known is None:
            order = self._orders.get(split)
            count = len(list(shards(self._samples(task, split), self._size))) if order is None else 0
            used = range(count) if order is None else order.stages_of(task)
            known = self._places[task, split] = [(task, split, i) for i in used]
        return known

    def scores(self, recipe_id: str, task: str, split: str) -> list[ShardScore] | None:
        """Return the scores of a task's shards in order; None unless every shard is scored."""
        answers = [self.answers.get((recipe_id, *place)) for place in self._shards_of(task, split)]
        scored = [a for a in answers if isinstance(a, ShardScore)]
        return scored if scored and len(scored) == len(answers) else None

    def stats(self, recipe_id: str, task: str, split: str) -> Stats | None:
        """Return the task's sums, added in shard order; None unless every shard is scored."""
        return self.answers.stats(recipe_id, self._shards_of(task, split))

    def outcomes(self, recipe_id: str, task: str, split: str) -> npt.NDArray[Any] | None:
        """Return one outcome a sample, in the data set's order; None unless every shard is scored."""
        return self._in_place(self.answers.outcomes(recipe_id, self._shards_of(task, split)), task, split)

    def outcomes_so_far(self, recipe_id: str, task: str, order: SampleOrder, stages: int) -> npt.NDArray[Any]:
        """Return the outcomes of the first stages of an order, all of which are scored, in that order."""
        places = [place for place in self._shards_of(task, order.name) if place[2] < stages]
        found = self.answers.outcomes(recipe_id, places)
        return np.zeros(0, np.bool_) if found is None else found

    def _in_place(self, values: npt.NDArray[Any] | None, task: str, split: str) -> npt.NDArray[Any] | None:
        """Return values of an order's samples in the data set's order."""
        if values is None or split not in self._orders:
            return values
        placed = np.empty_like(values)
        placed[self._orders[split].rows[task]] = values
        return placed

    def margins(self, recipe_id: str, task: str, split: str) -> npt.NDArray[Any] | None:
        """Return the margins of `tasks.base.ShardResult` in the order of outcomes; None unless every shard has them."""
        return self._in_place(self.answers.margins(recipe_id, self._shards_of(task, split)), task, split)

    def means(self, recipe_id: str, tasks: Iterable[str], split: str) -> dict[str, float] | None:
        """Return task -> mean outcome; None unless every task is scored in full."""
        stats = {task: self.stats(recipe_id, task, split) for task in tasks}
        means = {task: s.mean for task, s in stats.items() if s is not None}
        return means if len(means) == len(stats) else None

    def failure(self, recipe_id: str, tasks: Iterable[str], split: str, stage: int | None = None) -> Failure | None:
        """Return the first failure among the shards of `tasks`; with `stage`, of one stage of an order."""
        failures = self.answers.failures
        if not failures:
            return None
        keys = ((recipe_id, *p) for p in self._shards(tasks, split) if stage is None or p[2] == stage)
        return next((failures[key] for key in keys if key in failures), None)

    def any_score(self, recipe_id: str, tasks: Iterable[str]) -> ShardScore | None:
        """Return any score of the candidate on validation, for what all of them share, such as alpha as a number."""
        of_order = ((s, task) for task in tasks for s in ("val", *sorted(self._orders)))
        keys = ((recipe_id, *place) for s, task in of_order for place in self._shards_of(task, s))
        answers = (self.answers.get(key) for key in keys)
        return next((answer for answer in answers if isinstance(answer, ShardScore)), None)
