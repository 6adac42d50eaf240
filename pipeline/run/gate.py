"""Score the leave-one-group-out gate: each edit and merge as a whole, and without a third of the blocks in turn."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.merging.methods import METHODS
from pipeline.messages import Identity
from pipeline.plan.controls import dense_constants
from pipeline.plan.groups import Group
from pipeline.plan.plan import Plan, corners
from pipeline.pools.base import Pool
from pipeline.recipe import OUTSIDE, ParamValue, Recipe
from pipeline.records.gate import THIRDS, GatedEdit, RoleLosses, combination
from pipeline.records.journal import Journal
from pipeline.records.ledger import Ledger
from pipeline.report.data.run import BITS
from pipeline.run.progress import RunProgress
from pipeline.run.requests import ShardRequests
from pipeline.run.selection import cause_of
from pipeline.spec.arms import Arm
from pipeline.spec.run import RunSpec
from pipeline.spec.values import Range, listed
from pipeline.storage.caches.scores import ScoreCache
from search.intervals import Interval, TaskOutcomes, linearised_ratio, paired_difference, sample_means
from tasks.metrics import lower_is_better

#: Constants of a merge that are tried at most.
CONSTANTS = 8
_BASE = Recipe.make("zero")


@dataclass(frozen=True)
class PlannedEdit:
    """An edit or merge that the gate scores.

    Attributes:
        kind: edit or merge.
        name: the expert, or the arm.
        tasks: task -> target or control.
        recipe: the whole edit with lambda 1.
        constants: lambdas to choose from.
        searched: names of the dimensions that the arm searches.
        experts: of the run, in its order.
        measured: whether the statistics of batch normalisation are measured for every candidate.
    """

    kind: str
    name: str
    tasks: Mapping[str, str]
    recipe: Recipe
    constants: tuple[float, ...] = (1.0,)
    searched: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()
    measured: bool = False

    @property
    def combined(self) -> str:
        """How the task vector is made."""
        return combination(self.recipe, self.searched, self.experts)

    def whole(self, constant: float) -> Recipe:
        """Return the recipe with one lambda everywhere.

        An unscaled expert would keep the statistics of its file, and a difference to the same edit without a third
        would be one of statistics too: written as groups of lambda 1, it is measured.
        """
        recipe = self._scaled("constant", constant, 0, {})
        return self._grouped((1.0,) * len(THIRDS), constant) if self.measured and recipe.is_expert else recipe

    def without(self, third: str, constant: float) -> tuple[Recipe, ...]:
        """Return the recipes whose lambda is 0 in a third of the blocks; a merge is also tried at twice the constant.

        Less interference leaves room for a larger coefficient: at the constant of the whole merge alone, the loss
        without the first third would be overstated.
        """
        factors = tuple(float(third != other) for other in THIRDS)
        constants = (constant, 2 * constant) if self.kind == "merge" else (constant,)
        return tuple(self._grouped(factors, c) for c in constants)

    def _grouped(self, factors: tuple[float, ...], constant: float) -> Recipe:
        return self._scaled("grouped", 0, constant, {"factors": factors, OUTSIDE: constant})

    def _scaled(self, scaling: str, alpha: float, beta: float, params: Mapping[str, ParamValue]) -> Recipe:
        recipe = self.recipe
        made = Recipe.make(recipe.method, scaling, alpha, beta, recipe.weights, {**dict(recipe.params), **params})
        return replace(made, then=recipe.then)


def planned_edits(plan: Plan) -> list[PlannedEdit]:
    """Return one edit for each expert that an arm edits, and one merge for each arm with a merge of its own.

    A merge whose parameters are searched has them at their middle. Rewarded soups, greedy soups, merges of what another
    arm chose, and masks that are searched first have no single merge to take apart, and are left out.
    """
    arms, experts = plan.spec.arms, tuple(plan.spec.experts)
    edits: dict[str, PlannedEdit] = {}
    merges = []
    for group in plan.groups:
        if group.arm not in arms or group.derivation is not None or group.template.soup:
            continue
        tasks = {task: role for task, role in group.roles.items() if role != "ood"}
        if group.kind == "edit":
            known = edits.get(group.name)
            recipe = Recipe.make("single", weights=_only(group.name, list(experts)))
            scored = {**(known.tasks if known else {}), **tasks}
            edits[group.name] = PlannedEdit("edit", group.name, scored, recipe, experts=experts)
        elif group.kind == "merge" and group.search.sampler != "greedy":
            constants, searched = _constants(arms[group.arm], plan.spec), tuple(d.name for d in group.space.dims)
            merges.append(PlannedEdit("merge", group.arm, tasks, _merge(group), constants, searched, experts))
    same: dict[tuple[Recipe, str], PlannedEdit] = {}
    for merge in merges:  # arms that differ in their scaling alone are one merge; one with alpha 0 is the base
        if merge.constants:
            same.setdefault((merge.recipe, merge.combined), merge)
    return [*edits.values(), *same.values()]


def _constants(arm: Arm, spec: RunSpec) -> tuple[float, ...]:
    """Return the arm's own constants, or those of its tuned control, which a run scores too; evenly thinned out."""
    scaling = arm.scaling
    plain = scaling.function == "constant" and scaling.scale == 1 and not isinstance(scaling.alpha, Range)
    own = listed(scaling.alpha) if plain else ()
    found = [value for value in own or dense_constants(arm, spec) if value > 0]
    step = -(-len(found) // CONSTANTS)
    return tuple(found[::-1][:: step or 1][::-1])


def _only(expert: str, experts: list[str]) -> tuple[int, ...]:
    return tuple(int(name == expert) for name in experts)


def _merge(group: Group) -> Recipe:
    """Return the merge of a group without its scaling."""
    points, template = corners(group), group.template
    point = points[len(points) // 2]
    weights, params = template.filled(point)
    of_method = {p.name for p in METHODS[template.method].parameters}
    made = Recipe.make(template.method, weights=weights, params={k: v for k, v in params.items() if k in of_method})
    return made.followed_by(template.steps(point))


def gate_edits(
    plan: Plan,
    identity: Identity,
    folder: Path,
    open_pool: Callable[[], Pool],
    cache: ScoreCache | None,
    watch: Callable[[RunProgress], None] = lambda progress: None,
) -> list[GatedEdit]:
    """Score every edit and merge on validation, as a whole and without each third; the base is scored too.

    Args:
        plan: of the spec.
        identity: the checkpoints, data and numerics, as prepared.
        folder: for a journal, which nobody reads.
        open_pool: opens the pool.
        cache: scores of other runs; new ones are added.
        watch: called after every step.

    Raises:
        ValueError: if the model has fewer blocks than thirds, or the spec has nothing that the gate takes apart.
    """
    edits = [replace(edit, measured=bool(identity.calibration)) for edit in planned_edits(plan)]
    if len(identity.block_sizes) < len(THIRDS):
        raise ValueError(f"the gate needs {len(THIRDS)} blocks or more, got {len(identity.block_sizes)}: use --no-gate")
    if not edits:
        raise ValueError("arms: none edits an expert or merges experts by constant weights: use --no-gate")
    progress, ledger = RunProgress("gate"), Ledger(identity, plan.spec.shard_size, {})
    with closing(Journal(folder)) as journal, closing(open_pool()) as pool:
        try:
            requests = ShardRequests(ledger, journal, pool, cache, progress)
            return _measured(edits, _Scores(ledger, requests, lambda: watch(progress), plan.spec.draws))
        finally:
            if cache is not None:
                cache.flush()


@dataclass(frozen=True)
class _Scores:
    """Validation scores, which are requested when they are needed; `draws` is the number of completions of a prompt."""

    ledger: Ledger
    requests: ShardRequests
    watch: Callable[[], None]
    draws: int

    def score(self, wanted: Iterable[tuple[Recipe, Iterable[str]]]) -> None:
        """Have recipes scored on tasks."""
        for recipe, tasks in wanted:
            self.requests.request(recipe, tasks, "val")
        while self.requests.open:
            self.requests.absorb()
            self.watch()

    def failure(self, recipe: Recipe, tasks: Iterable[str]) -> str:
        """Return why a recipe has no score; "" if it has."""
        found = self.ledger.failure(self.ledger.recipe_id(recipe), tasks, "val")
        return cause_of(found) if found else ""

    def outcomes(self, recipe: Recipe, task: str) -> npt.NDArray[np.float64]:
        """Return one value a sample or prompt, whose mean is the score; larger is better."""
        found = self.ledger.outcomes(self.ledger.recipe_id(recipe), task, "val")
        assert found is not None, "it was scored, without a failure"
        sizes = self.ledger.identity.sizes.get(task, {}).get("val", ())
        values = linearised_ratio(found, sizes) if len(sizes) else found.astype(np.float64)
        return sample_means(-values if self.lower(task) else values, self.draws)

    def lower(self, task: str) -> bool:
        """Return whether a smaller value of a task is the better one."""
        return lower_is_better(self.ledger.identity.metrics[task])

    def difference(self, a: Recipe, b: Recipe, tasks: Iterable[str]) -> Interval:
        """Return the mean of a - b over tasks on the same samples; positive if a is better.

        Where no answer differs, a bootstrap has no width, whatever the number of samples: the interval is then that of
        the rule of three (Hanley and Lippman-Hand 1983), 3 / n to each side.
        """
        tasks = list(tasks)
        found = paired_difference([TaskOutcomes(t, self.outcomes(a, t), self.outcomes(b, t)) for t in tasks])
        metrics = {self.ledger.identity.metrics[task] for task in tasks}
        if found.low < found.high or metrics != {"accuracy"}:
            return found
        return replace(found, low=found.value - 3 / found.n, high=found.value + 3 / found.n)

    def best(self, recipes: Sequence[Recipe], tasks: Mapping[str, str]) -> int:
        """Return the place of the recipe with the best mean over the target tasks; the first of equals or failures."""
        targets = [task for task, role in tasks.items() if role == "target"]
        means = [
            -math.inf if self.failure(recipe, tasks) else sum(float(self.outcomes(recipe, t).mean()) for t in targets)
            for recipe in recipes
        ]
        return means.index(max(means))


def _measured(edits: list[PlannedEdit], scores: _Scores) -> list[GatedEdit]:
    scores.score([(_BASE, dict.fromkeys(task for edit in edits for task in edit.tasks))])
    scores.score((edit.whole(constant), edit.tasks) for edit in edits for constant in edit.constants)
    wholes = [scores.best([edit.whole(constant) for constant in edit.constants], edit.tasks) for edit in edits]
    constants = [edit.constants[place] for edit, place in zip(edits, wholes, strict=True)]
    scores.score(
        (recipe, edit.tasks)
        for edit, constant in zip(edits, constants, strict=True)
        for third in THIRDS
        for recipe in edit.without(third, constant)
    )
    return [_gated(edit, constant, scores) for edit, constant in zip(edits, constants, strict=True)]


def _gated(edit: PlannedEdit, constant: float, scores: _Scores) -> GatedEdit:
    metrics = {scores.ledger.identity.metrics[task] for task, role in edit.tasks.items() if role == "target"}
    found = GatedEdit(edit.kind, edit.name, edit.combined, constant, metrics == {"accuracy"})
    tried = {third: edit.without(third, constant) for third in THIRDS}
    whole, without = edit.whole(constant), {t: some[scores.best(some, edit.tasks)] for t, some in tried.items()}
    for recipe in (_BASE, whole, *without.values()):
        if failure := scores.failure(recipe, edit.tasks):
            return replace(found, failure=failure)
    roles, by_role = {}, _by_role(edit, scores)
    for role, tasks in by_role.items():
        cost = {third: scores.difference(whole, recipe, tasks) for third, recipe in without.items()}
        roles[role] = RoleLosses(scores.difference(whole, _BASE, tasks), cost)
    target, control = (_last_over_first(role, by_role, without, scores) for role in ("target", "control"))
    return replace(found, roles=roles, last_over_first=target, control_last_over_first=control)


def _last_over_first(
    role: str, by_role: Mapping[str, list[str]], without: Mapping[str, Recipe], scores: _Scores
) -> Interval | None:
    """Return by how much more a role loses without the last third than without the first; None if it has no tasks."""
    tasks = next((tasks for name, tasks in by_role.items() if name.startswith(role)), None)
    return None if tasks is None else scores.difference(without["first"], without["last"], tasks)


def _by_role(edit: PlannedEdit, scores: _Scores) -> dict[str, list[str]]:
    """Return role -> tasks; those in bits per byte are a role of their own, and targets come first."""
    found: dict[str, list[str]] = {}
    for task, role in sorted(edit.tasks.items(), key=lambda pair: pair[1] != "target"):
        found.setdefault(role + BITS * scores.lower(task), []).append(task)
    return found
