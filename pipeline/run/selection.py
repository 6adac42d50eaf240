"""From values on validation to what is chosen: objectives, references, the best candidate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pipeline.plan.groups import Chosen, Group, validation_tasks
from pipeline.plan.plan import Plan
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger
from search.objectives import METRICS, REWARD_METRICS, Objective, reward_metrics, role_metrics
from search.proposer import Proposal

#: The metric of tasks that are rewards.
REWARD = "reward"
#: Rewards whose standard deviation is at most this part of their mean are all the same, but for rounding.
_SAME = 1e-7


@dataclass(frozen=True)
class Candidate:
    """One proposal of a group and what became of it.

    Attributes:
        values: its objectives on validation, to be maximised; None when it failed.
        failure: the first cause, or "".
    """

    group: Group
    proposal: Proposal
    recipe: Recipe
    recipe_id: str
    values: tuple[float, ...] | None
    failure: str = ""


@dataclass(frozen=True)
class References:
    """What accuracies are normalised by, on one split: raw accuracies of experts on their own task, and of theta0.

    Attributes:
        experts: expert -> (its task, its accuracy there).
        control: task -> accuracy of the pre-trained model; its mean reward, where tasks are rewards.
        spread: task -> standard deviation of the pre-trained model's outcomes.
    """

    experts: Mapping[str, tuple[str, float]]
    control: Mapping[str, float]
    spread: Mapping[str, float] = field(default_factory=dict)

    def target(self, group: Group) -> dict[str, float]:
        """Task -> accuracy of the expert that was fine-tuned on it: of an edit its own, else the best of several."""
        found: dict[str, float] = {}
        for expert, (task, accuracy) in self.experts.items():
            if group.kind != "edit" or group.name == expert:
                found[task] = max(accuracy, found.get(task, 0.0))
        return found

    def own(self, task: str) -> float | None:
        """The best value on the task among the experts that were trained on it."""
        return max((value for mine, value in self.experts.values() if mine == task), default=None)

    def known(self, group: Group) -> dict[str, float]:
        """Task -> its reference in a group, where there is one that can be divided by."""
        target = self.target(group)
        of_role = ((t, (target if role == "target" else self.control).get(t)) for t, role in group.roles.items())
        return {task: value for task, value in of_role if value}


def references(plan: Plan, ledger: Ledger, split: str) -> References:
    """Read the references off the ledger; what failed or is missing is left out."""
    experts: dict[str, tuple[str, float]] = {}
    control: dict[str, float] = {}
    spread: dict[str, float] = {}
    for group in plan.references:
        recipe_id = ledger.recipe_id(group.recipe({}))
        wanted = list(group.roles) if not group.name else [plan.spec.target(group.name)]
        for task in wanted:
            stats = ledger.stats(recipe_id, task, split)
            if stats is not None and group.name:
                experts[group.name] = task, stats.mean
            elif stats is not None:
                control[task], spread[task] = stats.mean, stats.std
    return References(experts, control, spread)


def check_rewards(ledger: Ledger, known: References) -> None:
    """Every reward scores the base's completions, and not all of them alike: else hours would go by for nothing.

    Args:
        ledger: after the references were scored on validation.
        known: these references.

    Raises:
        ValueError: a reward failed on the base's completions, or gives the same to all of them.
    """
    identity, base = ledger.identity, ledger.recipe_id(Recipe.make("zero"))
    for task in (t for t in identity.tasks if identity.metrics[t] == REWARD):
        if failure := ledger.failure(base, [task], "val"):
            raise ValueError(
                f"tasks.{task}: {failure.kind} on the base's completions: {failure.cause}; mend it and run again with "
                "another --out: what was generated is kept, and will be scored as it is"
            )
        value, spread, count = known.control[task], known.spread[task], identity.tasks[task][1]
        if spread <= _SAME * abs(value):
            raise ValueError(
                f"tasks.{task}: gives {value:.6g} to all {count} completions of the base, so it compares nothing: "
                "check its model, label and inputs, and that completions are not all alike or empty"
            )


def judge(group: Group, proposal: Proposal, ledger: Ledger, refs: References) -> Candidate:
    """The candidate's objectives on validation, or why it has none."""
    recipe = group.recipe(proposal.point)
    recipe_id = ledger.recipe_id(recipe)
    tasks = validation_tasks(group)
    failure = ledger.failure(recipe_id, tasks, "val")
    if failure is not None:
        where = f"{failure.request.task} ({failure.request.split}, shard {failure.request.shard})"
        return Candidate(group, proposal, recipe, recipe_id, None, f"{failure.kind} on {where}: {failure.cause}")
    means = ledger.means(recipe_id, tasks, "val")
    assert means is not None, "judged before every shard was answered"
    rewards = all(ledger.identity.metrics[t] == REWARD for t in tasks)
    known = refs.control if rewards else refs.known(group)
    if missing := [t for t in tasks if t not in known]:
        cause = f"no reference to normalise by: it failed, or has an accuracy of 0, on {', '.join(missing)}"
        return Candidate(group, proposal, recipe, recipe_id, None, cause)
    try:
        if rewards:
            metrics = reward_metrics(means, refs.control, refs.spread)
        else:
            metrics = role_metrics(means, {t: group.roles[t] for t in tasks}, known, known)
        values = tuple(_objective(o, tuple(tasks), rewards)(metrics) for o in group.objectives)
    except ValueError as error:  # a division by a candidate's 0, or a reference below 0
        return Candidate(group, proposal, recipe, recipe_id, None, str(error))
    return Candidate(group, proposal, recipe, recipe_id, values)


@lru_cache
def _objective(text: str, tasks: tuple[str, ...], rewards: bool) -> Objective:
    return Objective.parse(text, tasks, REWARD_METRICS if rewards else METRICS)


def choose(candidates: Iterable[Candidate]) -> Candidate | None:
    """The largest sum of objectives; the first of equals, as the authors' strict > does. None when all failed."""
    best: Candidate | None = None
    for candidate in candidates:
        if candidate.values is None:
            continue
        if best is None or best.values is None or sum(candidate.values) > sum(best.values):
            best = candidate
    return best


def candidates(group: Group, proposals: Iterable[Proposal], ledger: Ledger, refs: References) -> list[Candidate]:
    """Every proposal of a group whose shards are all answered, judged."""
    return [judge(group, p, ledger, refs) for p in proposals if answered(group, p, ledger)]


def answered(group: Group, proposal: Proposal, ledger: Ledger) -> bool:
    """Whether every validation shard of a proposal has a score or a failure."""
    return not ledger.missing(group.recipe(proposal.point), validation_tasks(group), "val")


def judge_all(
    plan: Plan, ledger: Ledger, proposals: Mapping[tuple[str, str], list[Proposal]]
) -> dict[tuple[str, str], list[Candidate]]:
    """Every answered candidate of every group but the references, in the order of the tables."""
    refs = references(plan, ledger, "val")
    judged: dict[tuple[str, str], list[Candidate]] = {}
    for planned in plan.searched:
        group = complete(planned, judged)
        if group is not None:
            judged[group.key] = candidates(group, proposals.get(group.key, []), ledger, refs)
    return judged


def complete(group: Group, judged: Mapping[tuple[str, str], list[Candidate]]) -> Group | None:
    """The group with its template, from what its parents chose; None where one of them chose nothing."""
    if group.derivation is None:
        return group
    best = [choose(judged.get(parent, [])) for parent in group.derivation.parents]
    chosen = [Chosen(c.group, c.proposal.point) for c in best if c is not None]
    return group.derivation.complete(group, chosen) if len(chosen) == len(best) else None
