"""The work of a run: samples of each arm, and the hours at a known throughput."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.messages import Identity
from pipeline.plan.groups import Group
from pipeline.plan.plan import Plan
from pipeline.records.ledger import Ledger
from pipeline.run.forecast import Forecast, forecast_by_arm, proposed

#: Recipes that are compared to count combined task vectors; more vectors than are kept make no difference.
_MOST_COMPARED = 100


@dataclass(frozen=True, slots=True)
class ArmWork:
    """The work of an arm.

    Attributes:
        arm: its name.
        searches: number of groups.
        candidates: of all its searches.
        val, test: samples to score; of a run of rewards, completions to generate.
    """

    arm: str
    searches: int
    candidates: int
    val: int
    test: int


def work_of(plan: Plan, counts: Mapping[str, tuple[int, int]]) -> list[ArmWork]:
    """Return the work of each arm, references first.

    Args:
        plan: of the run.
        counts: task -> (validation samples, test samples).
    """
    tasks = {name: ("", *count) for name, count in counts.items()}
    identity = Identity("", tasks, dict.fromkeys(tasks, ""), (), 0, {}, "")
    found = forecast_by_arm(plan, Ledger(identity, plan.spec.shard_size, {}))
    # All rewards score the same completions.
    each = 1 if plan.spec.generation is None else len(plan.spec.tasks)
    arms: dict[str, list[Group]] = {}
    for group in plan.groups:
        arms.setdefault(group.arm, []).append(group)
    return [
        ArmWork(
            arm,
            len(groups),
            sum(map(proposed, groups)),
            *(found.get((arm, split), Forecast()).samples // each for split in ("val", "test")),
        )
        for arm, groups in arms.items()
    ]


def combined_vectors(plan: Plan) -> int:
    """Return how many task vectors are combined, up to 100; one expert's own is no new one."""
    known: set[tuple[object, ...]] = set()
    for method, weights, *others in _combinations(plan):
        if method not in ("zero", "single"):
            known.add((method, weights, *others))
        if len(known) >= _MOST_COMPARED:
            break
    return len(known)


def _combinations(plan: Plan) -> Iterator[tuple[object, ...]]:
    """Yield (method, weights, parameters, steps) of candidates; of samplers, whose points are unknown, one each."""
    for group in plan.groups:
        if group.derivation is None and (group.search.sampler == "grid" or not group.space.dims):
            recipes = (group.recipe(point) for point in group.space.grid()[:_MOST_COMPARED])
            yield from ((r.method, r.weights, r.params, r.then) for r in recipes)
        else:
            yield from ((group.template.method, group.key, i) for i in range(min(proposed(group), _MOST_COMPARED)))


def hours(samples: int, rate: float, workers: int) -> float:
    """Return the hours of scoring samples, at `rate` samples a second and worker."""
    return samples / rate / workers / 3600
