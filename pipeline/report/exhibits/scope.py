"""The tasks that an exhibit's arms are averaged over, so that adjacent numbers are means over the same tasks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.report.data.arms import ArmResult, distinct
from pipeline.report.data.comparable import GroupTask, members, own_places
from pipeline.report.data.estimates import Average, Measure, Pick
from pipeline.report.data.points import SearchedPoint, shared_points
from pipeline.report.data.run import BITS, PRE_TRAINED
from pipeline.spec.exhibits import ACCURACIES

#: Titles of accuracies on axes and columns.
WORDS = {
    "accuracy": "accuracy",
    "target": "target accuracy",
    "control": "control accuracy",
    "ood": "accuracy on shifted sets",
    "normalised": "normalised accuracy",
    "target_normalised": "normalised target accuracy",
    "control_normalised": "normalised control accuracy",
}


@dataclass(frozen=True)
class Scope:
    """Averages of arms that are compared: the pre-trained model and the plain experts use the tasks of the leader.

    Attributes:
        measure: the run.
        leader: the first arm that is neither; None if there is none.
    """

    measure: Measure
    leader: ArmResult | None

    @classmethod
    def of(cls, measure: Measure, arms: Iterable[ArmResult]) -> "Scope":
        """Return the scope of these arms."""
        models = [arm for arm in arms if arm.kind != PRE_TRAINED]
        edited = [arm for arm in models if not arm.is_unscaled]
        return cls(measure, next(iter(edited or models), None))

    def places(self, arm: ArmResult, role: str, normalised: bool = False) -> tuple[GroupTask, ...]:
        """Return the places of an arm's mean over the tasks of a role; normalised, also those in bits per byte."""
        return self._places(arm, role) + (self._places(arm, f"{role}{BITS}") if normalised else ())

    def _places(self, arm: ArmResult, role: str) -> tuple[GroupTask, ...]:
        if self.leader is None or arm.name == self.leader.name:
            return own_places(self.measure.run, arm, role)
        if arm.kind == PRE_TRAINED:
            return own_places(self.measure.run, self.leader, role)
        own = own_places(self.measure.run, arm, role)
        shared = set(members(self.measure.run, self.leader)) & set(arm.groups) if arm.is_unscaled else set()
        return tuple(place for place in own if place.group in shared) if shared else own

    def average(self, arm: ArmResult, metric: str, split: str, pick: Pick | None = None) -> Average | None:
        """Return one of `ACCURACIES` of an arm's choices, or of the candidates that `pick` returns."""
        role, normalised = ACCURACIES[metric]
        own = (role == "target") if normalised else None
        return self.measure.average(pick or arm.chosen, self.places(arm, role, normalised), split, own)


def subjects(measure: Measure, named: Mapping[str, str]) -> list[ArmResult]:
    """Return the arms of a figure that have candidates, under their labels, in different colours."""
    arms = {arm.name: arm for arm in measure.arms}
    return distinct([replace(arms[name], name=label) for label, name in named.items() if name in arms])


def caption(own: str, *sentences: str) -> str:
    """Return an exhibit's own note, completed to a sentence, followed by the sentences of its kind."""
    own = own.strip()
    return " ".join(filter(None, (own + "." * (bool(own) and own[-1] not in ".!?…:;"), *sentences)))


def shown_split(measure: Measure, arms: Sequence[ArmResult], asked: str | None) -> str:
    """Return the split that the exhibit asks for; else test if every candidate was scored on it, else validation."""
    candidates = [c for arm in arms for c in arm.candidates if not c.failure]
    tested = all(any(split == "test" for _, split in measure.run.scored(c)) for c in candidates)
    return asked or ("test" if tested and candidates else "val")


def ordered(arm: ArmResult) -> list[SearchedPoint]:
    """Return the points of an arm by rising value of its one dimension, or in the order of their proposal."""
    points = shared_points(arm)
    values = [point.dimension for point in points]
    if any(value is None for value in values):
        return points
    return sorted(points, key=lambda point: point.dimension or ("", 0.0))
