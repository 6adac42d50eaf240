"""The work of a run: samples of each arm, and the hours at a known throughput."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.merging.methods import METHODS
from pipeline.merging.needs import learned_from
from pipeline.messages import Identity
from pipeline.plan.groups import Group
from pipeline.plan.plan import Plan
from pipeline.plan.soups import LAMBDA
from pipeline.recipe import ParamPairs, Recipe
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
        free: the numbers that validation chooses for a candidate: those that are searched, here or in arms on which
            this one builds.
        learns_from: what candidates are computed from, besides task vectors (see `needs.learned_from`).
        val, test: samples to score; of a run of rewards, completions to generate.
    """

    arm: str
    searches: int
    candidates: int
    free: int
    learns_from: str
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
    known = {group.key: group for group in plan.groups}
    arms: dict[str, list[Group]] = {}
    for group in plan.groups:
        arms.setdefault(group.arm, []).append(group)
    return [
        ArmWork(
            arm,
            len(groups),
            sum(map(proposed, groups)),
            max(free_scalars(group, known) for group in groups),
            _learns_from(groups[0], known),
            *(found.get((arm, split), Forecast()).samples // each for split in ("val", "test")),
        )
        for arm, groups in arms.items()
    ]


def free_scalars(group: Group, known: Mapping[tuple[str, str], Group]) -> int:
    """Return how many numbers validation chooses for a group, in its own search and in those of its parents.

    It chooses no seed among the further ones.

    Args:
        group: of a plan.
        known: the groups of the plan by key.
    """
    soup, dims = group.template.soup, () if group.kind == "seeds" else group.space.dims
    own = len(soup) - 1 + sum(d.name.partition(".")[0] != LAMBDA for d in dims) if soup else len(dims)
    parents = group.derivation.parents if group.derivation else ()
    return own + sum(free_scalars(known[key], known) for key in parents)


def _learns_from(group: Group, known: Mapping[tuple[str, str], Group]) -> str:
    """Return what an arm's candidates learn from; one that rescales another's merge has the other's method."""
    method, above = group.template.method, group
    while not method and above.derivation:
        above = known[above.derivation.parents[0]]
        method = above.template.method
    return learned_from(method, group.template.scaling)


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
            yield from ((r.method, r.weights, _of_method(r), r.then) for r in recipes)
        else:
            yield from ((group.template.method, group.key, i) for i in range(min(proposed(group), _MOST_COMPARED)))


def _of_method(recipe: Recipe) -> ParamPairs:
    """Return the parameters that change the combined vector: factors of components and those of functions do not."""
    declared = {parameter.name for parameter in METHODS[recipe.method].parameters}
    return tuple(pair for pair in recipe.params if pair[0] in declared)


def hours(samples: int, rate: float, workers: int) -> float:
    """Return the hours of scoring samples, at `rate` samples a second and worker."""
    return samples / rate / workers / 3600
