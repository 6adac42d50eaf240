"""What an exhibit's arms are averaged over, so that what stands side by side is a mean over the same tasks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.report.data.arms import ArmResult, distinct
from pipeline.report.data.comparable import GroupTask, members, own_places
from pipeline.report.data.estimates import Average, Measure, Pick
from pipeline.report.data.points import SearchedPoint, shared_points
from pipeline.report.data.run import PRE_TRAINED
from pipeline.spec.exhibits import ACCURACIES

#: How an accuracy is called on an axis or over a column.
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
    """Averages of arms that are compared: the pre-trained model and the plain experts follow the others.

    Attributes:
        measure: the run.
        leader: the first arm that is neither; None where there is none.
    """

    measure: Measure
    leader: ArmResult | None

    @classmethod
    def of(cls, measure: Measure, arms: Iterable[ArmResult]) -> "Scope":
        """The scope of these arms."""
        models = [arm for arm in arms if arm.kind != PRE_TRAINED]
        edited = [arm for arm in models if not _as_they_are(arm)]
        return cls(measure, next(iter(edited or models), None))

    def places(self, arm: ArmResult, role: str) -> tuple[GroupTask, ...]:
        """What an arm's mean over the tasks of a role runs over."""
        if self.leader is None or arm.name == self.leader.name:
            return own_places(self.measure.run, arm, role)
        if arm.kind == PRE_TRAINED:
            return own_places(self.measure.run, self.leader, role)
        own = own_places(self.measure.run, arm, role)
        shared = set(members(self.measure.run, self.leader)) & set(arm.groups) if _as_they_are(arm) else set()
        return tuple(place for place in own if place.group in shared) if shared else own

    def average(self, arm: ArmResult, metric: str, split: str, pick: Pick | None = None) -> Average | None:
        """One of `ACCURACIES` of what an arm chose, or of what `pick` says."""
        role, normalised = ACCURACIES[metric]
        own = (role == "target") if normalised else None
        return self.measure.average(pick or arm.chosen, self.places(arm, role), split, own)


def _as_they_are(arm: ArmResult) -> bool:
    """Whether the arm is experts without any scaling."""
    recipes = [candidate.recipe for candidate in arm.candidates]
    return all((recipe.method, recipe.scaling, recipe.alpha) == ("single", "constant", 1) for recipe in recipes)


def subjects(measure: Measure, named: Mapping[str, str]) -> list[ArmResult]:
    """The arms of a figure that have candidates, under their labels, in colours that differ."""
    arms = {arm.name: arm for arm in measure.arms}
    return distinct([replace(arms[name], name=label) for label, name in named.items() if name in arms])


def caption(own: str, *said: str) -> str:
    """What is said of every exhibit of a kind, after its own note, which is ended like a sentence."""
    own = own.strip()
    return " ".join(filter(None, (own + "." * (bool(own) and own[-1] not in ".!?…:;"), *said)))


def shown_split(measure: Measure, arms: Sequence[ArmResult], wanted: str | None) -> str:
    """Test where every candidate of every arm was scored on it, else validation; or what the exhibit asks for."""
    candidates = [c for arm in arms for c in arm.candidates if not c.failure]
    tested = all(any(split == "test" for _, split in measure.run.scored(c)) for c in candidates)
    return wanted or ("test" if tested and candidates else "val")


def ordered(arm: ArmResult) -> list[SearchedPoint]:
    """The points of an arm by rising value of its one dimension, or as they were proposed."""
    points = shared_points(arm)
    values = [point.dimension for point in points]
    if any(value is None for value in values):
        return points
    return sorted(points, key=lambda point: point.dimension or ("", 0.0))
