"""Fronts against fronts: hypervolumes, dominance, and the gap in one reward at equal other.

Shape legend: P points of an arm, Q points of a front, K rewards, S = 1 + R with the measurement first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.report.data.arms import ArmResult
from pipeline.report.soups.resamples import interval
from pipeline.report.soups.scale import read_scale
from pipeline.report.soups.scene import SoupScene
from search.intervals import Interval
from search.pareto import Array, hypervolume, non_dominated

#: Dominance is said where it holds as measured and in so many of the resamples.
SURE = 0.975


@dataclass(frozen=True)
class Fronts:
    """Every soup's front in every resample, and what it dominates.

    Attributes:
        scene: the run on its split.
        fronts: arm -> S arrays (Q, K) of raw mean rewards.
        volume_S: arm -> hypervolume on the normalised scale.
        corner_K: the worst mean of each reward among all arms as measured, raw.
    """

    scene: SoupScene
    fronts: Mapping[str, Sequence[Array]]
    volume_S: Mapping[str, Array]
    corner_K: Array

    def difference(self, arm: str, other: str) -> Interval:
        """Hypervolume of one minus that of the other, paired by resample."""
        return interval((self.volume_S[arm] - self.volume_S[other]).round(9), self.scene.prompts)

    def volume(self, arm: str) -> Interval:
        """Hypervolume of one arm."""
        return interval(self.volume_S[arm], self.scene.prompts)


@dataclass(frozen=True, slots=True)
class Contest:
    """One arm's front against another's.

    Attributes:
        other: the other arm.
        volume: difference of hypervolumes, own minus other.
        dominates, dominated: the shares of resamples in which one front dominates the other; 0 where it does not as
            measured.
        gap: of two rewards, the mean difference in the second at equal first where the fronts overlap, in raw units;
            None where they do not overlap, or where there are more rewards.
    """

    other: ArmResult
    volume: Interval
    dominates: float
    dominated: float
    gap: Interval | None


def read_fronts(scene: SoupScene) -> Fronts:
    """Fronts, and hypervolumes above the worst values among all arms, at a fixed distance from the SFT model.

    A resample of harder prompts lowers all arms and the SFT model: the reference point moves with the latter, or that
    would count as a loss of all arms. The worst values of each resample are no better: a minimum over many points is
    the lower the more noise they have. Of 150 simulated runs (11 points of 2 rewards, 60 prompts, outcomes that are
    mostly a candidate's own noise) the 95% interval of a hypervolume held the true one in 90% with this reference
    point, in 73% with each resample's worst values, in 65% with one that stays; that of a difference in 97 to 98% with
    any of them.
    """
    scale = read_scale(scene)
    scaled = {soup.arm.name: scale.apply(soup.mean_SPK) for soup in scene.soups}
    low_K = np.min([points[0].min(axis=0) for points in scaled.values()], axis=0)
    volumes = {name: _volumes(points, low_K) for name, points in scaled.items()}
    fronts = {s.arm.name: [points[non_dominated(points)] for points in s.mean_SPK] for s in scene.soups}
    corner_K = np.min([soup.mean_SPK[0].min(axis=0) for soup in scene.soups], axis=0)
    return Fronts(scene, fronts, volumes, corner_K)


def contest(fronts: Fronts, arm: ArmResult, other: ArmResult) -> Contest:
    """How one arm's front does against another's."""
    ours, theirs = fronts.fronts[arm.name], fronts.fronts[other.name]
    return Contest(
        other,
        fronts.difference(arm.name, other.name),
        _share(np.array([dominates(a, b) for a, b in zip(ours, theirs, strict=True)])),
        _share(np.array([dominates(b, a) for a, b in zip(ours, theirs, strict=True)])),
        _gap(ours, theirs, fronts.scene.prompts),
    )


def dominates(ours_PK: Array, theirs_QK: Array) -> bool:
    """Whether every point of theirs has one of ours that is at least as good in all rewards and better in one."""
    at_least = (ours_PK[:, None] >= theirs_QK[None]).all(axis=2)
    better = (ours_PK[:, None] > theirs_QK[None]).any(axis=2)
    return bool((at_least & better).any(axis=0).all())


def mean_gap(ours_P2: Array, theirs_Q2: Array) -> float:
    """Mean difference in the second objective at equal first, over where both are defined; NaN where that is nowhere.

    Both are joined by straight lines along the first objective, and the mean over the overlap is exact.
    """
    ours, theirs = (points[np.argsort(points[:, 0], kind="stable")] for points in (ours_P2, theirs_Q2))
    low, high = max(ours[0, 0], theirs[0, 0]), min(ours[-1, 0], theirs[-1, 0])
    if high <= low:
        return float("nan")
    knots = np.unique(np.concatenate([ours[:, 0], theirs[:, 0]]))
    knots = knots[(knots >= low) & (knots <= high)]  # low and high are among them
    differences = np.interp(knots, *ours.T) - np.interp(knots, *theirs.T)
    return float(np.trapezoid(differences, knots) / (high - low))


def _volumes(points_SPK: Array, low_K: Array) -> Array:
    """(S,) hypervolumes, rounded, so that equal fronts differ by exactly 0."""
    return np.array([hypervolume(points_PK, low_K) for points_PK in points_SPK]).round(9)


def _share(holds_S: npt.NDArray[np.bool_]) -> float:
    return float(holds_S[1:].mean()) if holds_S[0] else 0.0


def _gap(ours: Sequence[Array], theirs: Sequence[Array], prompts: int) -> Interval | None:
    if ours[0].shape[1] != 2:
        return None
    gaps_S = np.array([mean_gap(a, b) for a, b in zip(ours, theirs, strict=True)]).round(12)
    kept_S = gaps_S[np.isfinite(gaps_S)]
    # Where resamples often have no overlap, an interval of the others would be of a choice among them.
    enough = np.isfinite(gaps_S[0]) and len(kept_S) >= SURE * len(gaps_S)
    return interval(kept_S, prompts) if enough else None
