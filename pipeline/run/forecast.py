"""The number of shards that a run has to score, as far as it is known beforehand."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.plan.groups import GREEDY, Group, validation_tasks
from pipeline.plan.plan import Plan
from pipeline.plan.stops import FIRST, stop_rule
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger
from pipeline.run.hardest_first import stages_of

#: Candidates that are compared in a second.
_MOST_COMPARED = 200_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """The work of a run without any cache; an upper bound if arms depend on what others choose.

    Attributes:
        shards: requests to workers.
        samples: forward passes of one sample.
    """

    shards: int = 0
    samples: int = 0

    def __add__(self, other: "Forecast") -> "Forecast":
        """Add the work of two parts of a run."""
        return Forecast(self.shards + other.shards, self.samples + other.samples)


def forecast(plan: Plan, ledger: Ledger) -> Forecast:
    """Count the work of a run; equal candidates count once, unless there are too many to compare."""
    return sum(forecast_by_arm(plan, ledger).values(), Forecast())


def forecast_by_arm(plan: Plan, ledger: Ledger) -> dict[tuple[str, str], Forecast]:
    """Count the work of each arm and split; an arm whose candidates an arm above has too needs less."""
    any_recipe = plan.references[0].recipe({})
    found: dict[tuple[str, str], Forecast] = {}
    staged = {g.arm for g in plan.searched if not stop_rule(g, plan, ledger.identity).why_not}
    for arm, count, tasks, split in _parts(plan):
        requests = ledger.requests(any_recipe, tasks, split)
        samples = sum(r.stop - r.start for r in requests)
        shards = count * len(requests)
        if split == "val" and arm in staged and count > FIRST:
            # About half of the stages are needed, each with a request for each task.
            shards = FIRST * len(requests) + (count - FIRST) * (stages_of(samples) * len(tasks) // 2)
        part = Forecast(shards, count * samples)
        found[arm, split] = found.get((arm, split), Forecast()) + part
    return found


def _parts(plan: Plan) -> Iterator[tuple[str, int, tuple[str, ...], str]]:
    """Yield (arm, number of candidates, tasks, split)."""
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
        yield group.arm, count, tasks, "val"
        if group.kind != "mask":
            yield group.arm, count if group.test_all else 1, tuple(group.roles), "test"


def proposed(group: Group) -> int:
    """Return the most candidates that a group proposes; a greedy soup tries far fewer than its space has points."""
    if group.search.sampler == GREEDY:
        return 2 * len(group.space.dims) - 1
    return group.search.trials or len(group.space.grid())
