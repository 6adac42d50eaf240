"""The points of an arm's search space that were scored in every group, and so can be averaged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.run import CandidateRow


@dataclass(frozen=True, slots=True)
class SearchedPoint:
    """One point, with its candidate in each group."""

    values: Mapping[str, object]
    by_group: Mapping[str, CandidateRow]

    def pick(self, group: str) -> CandidateRow | None:
        """Return the candidate of a group; theta0 has one row, in the group "", for all groups."""
        return self.by_group.get(group) or self.by_group.get("")

    @property
    def label(self) -> str:
        """The point in words: "alpha = 0.3, beta = 0.7"."""
        return describe(self.values)

    @property
    def chosen(self) -> bool:
        """Whether validation chose it in at least one group."""
        return any(candidate.chosen for candidate in self.by_group.values())

    @property
    def dimension(self) -> tuple[str, float] | None:
        """(name, value) if exactly one dimension was searched and it is a number, else None."""
        if len(self.values) != 1:
            return None
        ((name, value),) = self.values.items()
        return (name, float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def shared_points(arm: ArmResult) -> list[SearchedPoint]:
    """Return the points of an arm that have a score in each of its groups, in the order of their proposal.

    Empty if most points belong to one expert: adaptive samplers share only their first points, which would misjudge
    them.
    """
    found: dict[str, dict[str, CandidateRow]] = {}
    for candidate in arm.candidates:
        if not candidate.failure:
            found.setdefault(json.dumps(candidate.point, sort_keys=True), {})[candidate.group] = candidate
    shared = [by_group for by_group in found.values() if set(by_group) == set(arm.groups)]
    if 2 * len(shared) * len(arm.groups) < sum(map(len, found.values())):
        return []
    return [SearchedPoint(next(iter(by_group.values())).point, by_group) for by_group in shared]


def describe(values: Mapping[str, object]) -> str:
    """Return a point in one line."""
    return ", ".join(f"{k} = {v:.4g}" if isinstance(v, float) else f"{k} = {v}" for k, v in values.items())
