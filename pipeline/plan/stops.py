"""Where candidates may be stopped before all their samples are scored, and why not elsewhere."""

from dataclasses import dataclass

from pipeline.messages import Identity
from pipeline.plan.groups import GREEDY, Group, validation_tasks
from pipeline.plan.plan import Plan
from pipeline.spec.arms import Race
from search.monotone import decreasing_part
from search.objectives import Objective

#: Candidates of a search that are scored in full first.
FIRST = 8
#: Samplers whose points do not depend on outcomes.
_NOT_ADAPTIVE = ("grid", "random", "qmc")


@dataclass(frozen=True, slots=True)
class StopRule:
    """How candidates of a group are stopped.

    Attributes:
        why_not: why every candidate is scored in full; "" if some may be stopped.
        race: chance of an error in the whole search by which a candidate may be stopped; 0 for exact stops alone.
    """

    why_not: str = ""
    race: float = 0.0


def stop_rule(group: Group, plan: Plan, identity: Identity) -> StopRule:
    """Return how candidates of a group are stopped in a run."""
    stop = group.search.stop
    why_not = why_in_full(group, plan) or _why_tasks(group, identity)
    return StopRule(why_not, stop.race if isinstance(stop, Race) else 0.0)


def why_in_full(group: Group, plan: Plan) -> str:
    """Say why every candidate of a group is scored in full, as far as the spec tells; "" if some may be stopped."""
    search, spec = group.search, plan.spec
    if search.stop == "none":
        return "stop is none"
    if not group.space.dims:
        return "there is one candidate"
    if spec.generation is not None:
        return "a reward has no largest value"
    if group.test_all:
        return "test is every: each candidate is scored on test"
    if search.sampler == GREEDY:
        return "a greedy soup compares the values of all candidates"
    for text in group.objectives:
        if part := decreasing_part(Objective.parse(text)):
            return f"the objective {text!r} can fall when an accuracy grows: {part}"
    if group.arm in plan.shown_in_full:
        return "an exhibit shows every candidate"
    if isinstance(search.stop, Race) and len(group.objectives) > 1:
        return "a race needs one objective"
    return _why_not_by_default(group) if search.stop == "auto" else ""


def _why_not_by_default(group: Group) -> str:
    """Say what the report shows of candidates that are not chosen; only `stop: exact` or a race gives that up."""
    if group.search.sampler not in _NOT_ADAPTIVE:
        return f"{group.search.sampler} proposes by the values of all candidates"
    if len(group.objectives) > 1:
        return "the report compares fronts of all candidates"
    if len(group.space.dims) == 1:
        return "the report has a curve of all candidates"
    if group.kind == "edit" and "control" in group.roles.values():
        return "the report has the trade-off of target and control of all candidates"
    return ""


def _why_tasks(group: Group, identity: Identity) -> str:
    if not identity.together:
        return "the run was begun by a version without stops"
    for task in validation_tasks(group):
        if identity.metrics[task] != "accuracy":
            return f"the task {task} is measured in {identity.metrics[task]}"
        if task not in identity.together:
            return f"the task {task} cannot score some samples alone"
    return ""
