"""The rankings of an arena: its arms and their controls on test, for each set of merged experts and for the edits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms, GroupTask, own_places
from pipeline.report.data.estimates import Measure
from pipeline.report.data.objective_outcomes import objective_outcomes
from pipeline.report.data.ranking import Rank, ranked
from pipeline.spec.arena import EDIT, Arena, arms_of
from search.intervals import TaskOutcomes, mean_interval

#: The outcomes of some models by name; those without a score on every task are None.
Scored = Mapping[str, list[TaskOutcomes] | None]


@dataclass(frozen=True)
class Ranking:
    """Arms of an arena, best first.

    Attributes:
        bench: what they are compared on.
        label: the set of merged experts, or "".
        arms: those with a score on every task.
        ranks: theirs.
        missing: names of the others.
        objectives: what edits are ranked by; () for merges, which are ranked by their mean accuracy.
        values: the objective of each arm, its mean over experts; () for merges.
        otherwise: names of edits that validation chose by other objectives; they are not ranked.
        by_expert: of several edited experts, expert -> arm -> its rank among the edits of this expert.
    """

    bench: ComparableArms
    label: str
    arms: tuple[ArmResult, ...]
    ranks: tuple[Rank, ...]
    missing: tuple[str, ...]
    objectives: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    otherwise: tuple[str, ...] = ()
    by_expert: Mapping[str, Mapping[str, Rank]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What is ranked."""
        kind = {"edit": "Ranking of edits", "merge": "Ranking"}[self.bench.kind]
        return f"{kind}, {self.label}" if self.label else kind


def rankings(measure: Measure) -> list[Ranking]:
    """Return the rankings, edits first; none if the spec has no arena, or nothing is scored on test."""
    written = measure.run.provenance["spec"].get("arena")
    if not written:
        return []
    sets: dict[tuple[str, str], set[str]] = {}
    for name, (label, method, _) in arms_of(arena := Arena.model_validate(written)).items():
        kind = "edit" if arena.edit and method == EDIT else "merge"
        sets.setdefault((kind, label), set()).add(name)
    found = [
        (_of_edits if kind == "edit" else _of_merges)(measure, bench, label, names)
        for (kind, label), names in sets.items()
        for bench in measure.benches
        if bench.kind == kind
    ]
    return [ranking for ranking in found if ranking]


def _of_merges(measure: Measure, bench: ComparableArms, label: str, names: set[str]) -> Ranking | None:
    own = [arm for arm in bench.arms if arm.name in names or arm.control_of in names]
    averages = {arm.name: measure.average(arm.chosen, bench.over("target"), "test") for arm in own}
    found = {name: average.cells if average else None for name, average in averages.items()}
    arms, ranks, missing = _ranked(own, found)
    return Ranking(bench, label, arms, ranks, missing) if arms else None


def _of_edits(measure: Measure, bench: ComparableArms, label: str, names: set[str]) -> Ranking | None:
    """Rank edits, and the experts as they are."""
    if not any(arm.name in names for arm in bench.arms):
        return None
    objectives = tuple(measure.run.provenance["spec"]["select"]["maximise"])
    chosen_by = measure.run.provenance["objectives"]
    whole = [a for a in bench.arms if a.name in names or a.control_of in names]
    otherwise = tuple(a.name for a in whole if tuple(chosen_by.get(a.name, objectives)) != objectives)
    arena = [a for a in whole if a.name not in otherwise]
    own = [a for a in bench.arms if a in arena or (a.role == "plain" and a.is_unscaled)]
    # Not all of the bench: arms of the user may be scored on more tasks.
    scored = {p for arm in arena or whole for role in bench.roles for p in own_places(measure.run, arm, role)}
    places = [p for role in ("target", "control") for p in bench.normalised_over(role) if p in scored]

    def outcomes(places: Sequence[GroupTask]) -> Scored:
        return {arm.name: objective_outcomes(measure, arm, places, objectives) for arm in own}

    found = outcomes(places)
    arms, ranks, missing = _ranked(own, found)
    if not arms:
        return None
    values = tuple(mean_interval(found[arm.name] or []).value for arm in arms)
    by_expert = {}
    for expert in bench.experts if len(bench.experts) > 1 else []:
        placed, its, _ = _ranked(own, outcomes([place for place in places if place.group == expert]))
        by_expert[expert] = {arm.name: rank for arm, rank in zip(placed, its, strict=True)}
    return Ranking(bench, label, arms, ranks, missing, objectives, values, otherwise, by_expert)


def _ranked(
    arms: Sequence[ArmResult], found: Scored
) -> tuple[tuple[ArmResult, ...], tuple[Rank, ...], tuple[str, ...]]:
    """Return the arms with outcomes, best first, their ranks, and the names of the others."""
    scored = [(arm, cells) for arm in arms if (cells := found[arm.name])]
    ranks = ranked([cells for _, cells in scored]) if scored else []
    missing = tuple(name for name, cells in found.items() if not cells)
    return tuple(scored[rank.place][0] for rank in ranks), tuple(ranks), missing
