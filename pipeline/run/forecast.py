"""The number of shards that a run has to score, as far as it is known beforehand."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.plan.groups import GREEDY, Group, validation_tasks
from pipeline.plan.plan import Plan
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger

#: Candidates that are compared in a second.
_MOST_COMPARED = 200_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """The work of a run without any cache; an upper bound if arms depend on what others choose.

    Attributes:
        shards: requests to workers.
        samples: forward passes of one sample.
    """

    shards: int
    samples: int


def forecast(plan: Plan, ledger: Ledger) -> Forecast:
    """Count the work of a run; equal candidates count once, unless there are too many to compare."""
    any_recipe = plan.references[0].recipe({})
    shards = samples = 0
    for count, tasks, split in _parts(plan):
        requests = ledger.requests(any_recipe, tasks, split)
        shards += count * len(requests)
        samples += count * sum(r.stop - r.start for r in requests)
    return Forecast(shards, samples)


def _parts(plan: Plan) -> Iterator[tuple[int, tuple[str, ...], str]]:
    """Yield (number of candidates, tasks, split)."""
    known: set[tuple[Recipe, tuple[str, ...]]] = set()
    compared = sum(map(proposed, plan.groups)) <= _MOST_COMPARED
    for group in plan.groups:
        tasks = tuple(validation_tasks(group))
        if compared and group.derivation is None and (group.search.sampler == "grid" or not group.space.dims):
            new = {(group.recipe(point), tasks) for point in group.space.grid()} - known
            known |= new
            count = len(new)
        else:
            count = proposed(group)
        yield count, tasks, "val"
        if group.kind != "mask":
            yield count if group.test_all else 1, tuple(group.roles), "test"


def proposed(group: Group) -> int:
    """Return the most candidates that a group proposes; a greedy soup tries far fewer than its space has points."""
    if group.search.sampler == GREEDY:
        return 2 * len(group.space.dims) - 1
    return group.search.trials or len(group.space.grid())
