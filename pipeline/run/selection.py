"""Selection on validation: references, objectives, and the best candidate of each group."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from pipeline.messages import Failure
from pipeline.plan.groups import Chosen, Group, validation_tasks
from pipeline.plan.plan import Plan
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger
from pipeline.records.sample_order import data_split
from search.objectives import METRICS, REWARD_METRICS, Objective, reward_metrics, role_metrics
from search.proposer import Proposal
from tasks.metrics import lower_is_better

#: The metric of tasks that are rewards.
REWARD = "reward"
#: Rewards are all the same, up to rounding, if their standard deviation is at most this part of their mean.
_SAME = 1e-7


@dataclass(frozen=True)
class Stopped:
    """Why a candidate was not scored in full.

    Attributes:
        rule: exact or race.
        incumbent: number of the candidate that it cannot reach, which is scored in full.
        stage: number of stages that were scored.
        seen: number of samples that were scored.
        samples: number of samples of the tasks.
        bounds: its objectives if everything unseen were right: none can be larger.
        estimate: what the sampler receives. It takes the unseen samples as the first candidates had them; it is not a
            score.
    """

    rule: str
    incumbent: int
    stage: int
    seen: int
    samples: int
    bounds: tuple[float, ...]
    estimate: tuple[float, ...]


@dataclass(frozen=True)
class Candidate:
    """One proposal of a group with its outcome.

    Attributes:
        values: its objectives on validation, to be maximised; None if it failed or was stopped.
        failure: the first cause, or "".
        split: under which the ledger has its validation scores: "val", or the name of an order of samples.
        stopped: why it was not scored in full; None if it was.
    """

    group: Group
    proposal: Proposal
    recipe: Recipe
    recipe_id: str
    values: tuple[float, ...] | None
    failure: str = ""
    split: str = "val"
    stopped: Stopped | None = None

    @property
    def told(self) -> tuple[float, ...] | None:
        """The values that the sampler receives: the objectives, or the estimate of a stopped candidate."""
        return self.values if self.stopped is None else self.stopped.estimate


@dataclass(frozen=True)
class References:
    """The values that normalise accuracies on one split: of each expert on its own task, and of the pre-trained model.

    Attributes:
        experts: expert -> (its task, its accuracy there).
        control: task -> accuracy of the pre-trained model, or its mean reward.
        spread: task -> standard deviation of the pre-trained model's outcomes.
    """

    experts: Mapping[str, tuple[str, float]]
    control: Mapping[str, float]
    spread: Mapping[str, float] = field(default_factory=dict)

    def target(self, group: Group) -> dict[str, float]:
        """Return task -> accuracy of the expert fine-tuned on it: an edit's own, else the best of several."""
        best: dict[str, float] = {}
        for expert, (task, accuracy) in self.experts.items():
            if group.kind != "edit" or group.name == expert:
                best[task] = max(accuracy, best.get(task, 0.0))
        return best

    def own(self, task: str) -> float | None:
        """Return the best value on the task among the experts that were trained on it."""
        return max((value for trained, value in self.experts.values() if trained == task), default=None)

    def known(self, group: Group) -> dict[str, float]:
        """Return task -> its reference in a group, for the tasks whose reference is known and not 0."""
        target = self.target(group)
        of_role = ((t, (target if role == "target" else self.control).get(t)) for t, role in group.roles.items())
        return {task: value for task, value in of_role if value}


def references(plan: Plan, ledger: Ledger, split: str) -> References:
    """Return the references that are scored; failed and missing ones are left out."""
    experts: dict[str, tuple[str, float]] = {}
    control: dict[str, float] = {}
    spread: dict[str, float] = {}
    for group in plan.references:
        recipe_id = ledger.recipe_id(group.recipe({}))
        for task in [plan.spec.target(group.name)] if group.name else group.roles:
            stats = ledger.stats(recipe_id, task, split)
            if stats is not None and group.name:
                experts[group.name] = task, stats.mean
            elif stats is not None:
                control[task], spread[task] = stats.mean, stats.std
    return References(experts, control, spread)


def check_rewards(plan: Plan, ledger: Ledger, refs: References) -> None:
    """Require that every reward scores the base's completions, and not all the same, before the search starts.

    Those that are accuracies may be the same: the base may solve nothing.

    Args:
        plan: of the run.
        ledger: the answers, with the references scored on validation.
        refs: these references.

    Raises:
        ValueError: if a reward failed on the base's completions, or gives all of them the same value.
    """
    identity, base = ledger.identity, ledger.recipe_id(Recipe.make("zero"))
    for task in (t for t in identity.tasks if plan.spec.generation or identity.metrics[t] == REWARD):
        if failure := ledger.failure(base, [task], "val"):
            raise ValueError(
                f"tasks.{task}: {failure.kind} on the base's completions: {failure.cause}; fix it and rerun with "
                "another --out: the completions are kept, and will be scored as they are"
            )
        if identity.metrics[task] != REWARD:
            continue
        value, spread, count = refs.control[task], refs.spread[task], identity.tasks[task][1]
        if spread <= _SAME * abs(value):
            raise ValueError(
                f"tasks.{task}: gives {value:.6g} to all {count} completions of the base, so it compares nothing: "
                "check its model, label and inputs, and that the completions are neither all the same nor empty"
            )


def judge(group: Group, proposal: Proposal, ledger: Ledger, refs: References, split: str = "val") -> Candidate:
    """Return the candidate of an answered proposal, with its objectives on validation or the cause of its failure.

    Args:
        group: of the candidate.
        proposal: its point.
        ledger: with all its answers under `split`.
        refs: of validation.
        split: "val", or the name of an order of samples.
    """
    recipe = group.recipe(proposal.point)
    candidate = Candidate(group, proposal, recipe, ledger.recipe_id(recipe), None, split=split)
    tasks = validation_tasks(group)
    failure = ledger.failure(candidate.recipe_id, tasks, split)
    if failure is not None:
        return replace(candidate, failure=cause_of(failure))
    means = ledger.means(candidate.recipe_id, tasks, split)
    assert means is not None, "judged before every shard was answered"
    try:
        return replace(candidate, values=objective_values(group, means, ledger, refs))
    except ValueError as error:
        return replace(candidate, failure=str(error))


def cause_of(failure: Failure) -> str:
    """Return a candidate's cause of failure from that of a shard."""
    request = failure.request
    return f"{failure.kind} on {request.task} ({data_split(request.split)}, shard {request.shard}): {failure.cause}"


def objective_values(group: Group, means: Mapping[str, float], ledger: Ledger, refs: References) -> tuple[float, ...]:
    """Return the objectives of a candidate from its mean on each task.

    Raises:
        ValueError: if a reference is missing or 0, or the objectives divide by a candidate's 0.
    """
    tasks = list(means)
    rewards = any(ledger.identity.metrics[t] == REWARD for t in tasks)
    known = refs.control if rewards else refs.known(group)
    if missing := [t for t in tasks if t not in known]:
        raise ValueError(f"no reference to normalise by: it failed, or has an accuracy of 0, on {', '.join(missing)}")
    if rewards:
        metrics = reward_metrics(means, refs.control, _units(group, tasks, ledger, refs))
    else:
        lower = {t for t in tasks if lower_is_better(ledger.identity.metrics[t])}
        metrics = role_metrics(means, {t: group.roles[t] for t in tasks}, known, known, lower)
    return tuple(_objective(o, tuple(tasks), rewards)(metrics) for o in group.objectives)


def _units(group: Group, tasks: Iterable[str], ledger: Ledger, refs: References) -> dict[str, float]:
    """Return the difference that counts as 1 of each task: see `reward_metrics`; an accuracy without one stays."""
    of_accuracies, metrics = refs.known(group), ledger.identity.metrics
    return {t: refs.spread[t] if metrics[t] == REWARD else of_accuracies.get(t, 1.0) for t in tasks}


@lru_cache
def _objective(text: str, tasks: tuple[str, ...], rewards: bool) -> Objective:
    return Objective.parse(text, tasks, REWARD_METRICS if rewards else METRICS)


def choose(candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the candidate with the largest sum of objectives, the first of equals; None if all failed.

    The authors' code compares with a strict > too.
    """
    scored = [(sum(c.values), c) for c in candidates if c.values is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def answered(group: Group, proposal: Proposal, ledger: Ledger) -> bool:
    """Return whether every validation shard of a proposal has a score or a failure."""
    return not ledger.missing(group.recipe(proposal.point), validation_tasks(group), "val")


def complete(group: Group, judged: Mapping[tuple[str, str], list[Candidate]]) -> Group | None:
    """Return the group with its template from what its parents chose; None if a parent chose nothing."""
    if group.derivation is None:
        return group
    best = [choose(judged.get(parent, [])) for parent in group.derivation.parents]
    chosen = [Chosen(c.group, c.proposal.point) for c in best if c is not None]
    return group.derivation.complete(group, chosen) if len(chosen) == len(best) else None
