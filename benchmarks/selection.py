"""Measures how much better the best of many candidates looks than it is, and how well the report corrects it.

Worlds with a known truth: outcomes of K candidates that are equally good or differ, more or less correlated; and the
real outcomes of the two runs of `benchmarks.regret`, whose 240 samples a task are taken for the whole population. Each
repetition draws n validation samples of each task, chooses the best candidate, and compares its true value with four
estimates: as measured, minus the optimism of the bootstrap (Efron), on the other half when half of the samples chooses,
and on the samples that resamples leave out (`search.winners_curse`). Then it draws a test set, and compares the
predicted drop with the measured one. Values are accuracies times 100. Run: python -m benchmarks.selection
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from benchmarks.regret import SETTINGS, Scored
from search.intervals import Array
from search.winners_curse import BagMeans, Choice, predict

#: (candidates, samples, correlation of their outcomes, standard deviation of their true accuracies)
WORLDS = (
    *((k, 100, 0.8, 0.0) for k in (3, 11, 121, 314)),
    *((121, 100, rho, 0.0) for rho in (0.3, 0.95)),
    *((121, n, 0.8, 0.02) for n in (100, 400, 1600)),
    (121, 400, 0.8, 0.1),
)
RESAMPLES = 200
ESTIMATES = ("measured", "optimism", "halves", "left out")


@dataclass(frozen=True)
class World:
    """Outcomes of K candidates on N samples of T tasks, drawn for validation and, of the same kind, for a test."""

    val_TKN: Array
    test_TKN: Array
    factor_T: Array
    truth_K: Array

    def value_K(self, outcomes_TKN: Array) -> Array:
        """Return the objective, a weighted sum of the tasks' means."""
        value_K: Array = self.factor_T @ outcomes_TKN.mean(axis=2)
        return value_K


def simulated(setting: tuple[int, int, float, float], repetitions: int) -> Iterator[World]:
    """Yield worlds of one task whose outcomes are normal variables of one common factor, cut at their accuracy."""
    (count, samples, correlation, spread), rng = setting, np.random.default_rng(0)
    for _ in range(repetitions):
        truth_K = np.clip(0.7 + spread * rng.standard_normal(count), 0.02, 0.98)
        shape = (1, count, 2 * samples)
        own, common = rng.standard_normal(shape), rng.standard_normal((1, 1, 2 * samples))
        hidden = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        right = (hidden < norm.ppf(truth_K)[:, None]).astype(np.float64)
        yield World(right[..., :samples], right[..., samples:], np.ones(1), truth_K)


def resampled(name: str, folder: Path, samples: int, repetitions: int) -> Iterator[World]:
    """Yield draws, with replacement, from the real outcomes of a run."""
    scored = Scored(name, folder)
    setting, rng = scored.setting, np.random.default_rng(0)
    points = [point for point in scored.outcomes if isinstance(point, tuple)]
    pool_TKP = np.stack([scored.outcomes[point] for point in points], axis=1)
    alone_T = np.array([1 / scored.outcomes[t][i].mean() for i, t in enumerate(setting.tasks) if t in setting.experts])
    base_T = scored.outcomes[""].mean(axis=1)
    if name == "merge":  # the mean of accuracy / the expert's
        factor_T = alone_T / len(alone_T)
    else:  # 2 * target + retained, over 3
        controls = np.array([t not in setting.experts for t in setting.tasks])
        factor_T = np.where(controls, 1 / base_T[controls].sum(), 2 * alone_T[0]) / setting.scale
    truth_K = factor_T @ pool_TKP.mean(axis=2)
    for _ in range(repetitions):
        drawn = [_drawn(pool_TKP, samples, rng) for _ in range(2)]
        yield World(drawn[0], drawn[1], factor_T, truth_K)


def _drawn(pool_TKP: Array, samples: int, rng: np.random.Generator) -> Array:
    tasks, _, size = pool_TKP.shape
    places_TN = rng.integers(0, size, (tasks, samples))
    drawn: Array = np.take_along_axis(pool_TKP, places_TN[:, None, :], axis=2)
    return drawn


def estimates(world: World, kept_K: npt.NDArray[np.bool_], seed: int) -> Mapping[str, tuple[float, ...]]:
    """Return estimate -> (error against the truth, whether its 95% interval holds the truth); and the drop.

    The drop has three values: the predicted one, the measured one, and whether the interval holds the measured one.
    Only the candidates that are kept are known.
    """
    val_TKN = world.val_TKN[:, kept_K]
    bags = [BagMeans.of(task, seed * 100 + i, RESAMPLES) for i, task in enumerate(val_TKN)]
    value_K, bag_RK, left_RK, elsewhere_RK = (
        sum(f * part for f, part in zip(world.factor_T, parts, strict=True))
        for parts in zip(*((b.mean_A, b.bag_RA, b.left_out_RA, b.elsewhere(b.n)) for b in bags), strict=True)
    )
    assert isinstance(value_K, np.ndarray) and isinstance(bag_RK, np.ndarray)
    chosen, again_R = int(value_K.argmax()), bag_RK.argmax(axis=1)
    truth, value = world.truth_K[kept_K][chosen], float(value_K[chosen])
    rows = np.arange(RESAMPLES)
    found = predict([Choice.of(value_K, bag_RK, left_RK, elsewhere_RK)], val_TKN[0, 0].size)
    moves = {
        "measured": 0.0,
        "optimism": float((value_K[again_R] - bag_RK[rows, again_R]).mean()),
        "halves": _halves(val_TKN, world.factor_T, seed) - value,
        "left out": found.drop.value,
    }
    low, high = found.corrected.low - found.drop.value, found.corrected.high - found.drop.value
    errors = {
        name: (value + move - truth, float(low + move <= truth <= high + move), move) for name, move in moves.items()
    }
    measured = float(world.value_K(world.test_TKN[:, kept_K])[chosen]) - value
    return {**errors, "drop": (found.drop.value, measured, float(found.drop.low <= measured <= found.drop.high))}


def _halves(val_TKN: Array, factor_T: Array, seed: int) -> float:
    """Return the mean value, on one half of the samples, of what the other half chooses."""
    rng, samples = np.random.default_rng(seed), val_TKN.shape[2]
    total_TK, size, found = val_TKN.sum(axis=2), samples // 2, []
    for _ in range(RESAMPLES):
        half_TN = np.argsort(rng.random((len(val_TKN), samples)), axis=1) < size
        inside_TK = np.einsum("tkn,tn->tk", val_TKN, half_TN)
        best = int((factor_T @ inside_TK).argmax())
        found.append(factor_T @ (total_TK - inside_TK)[:, best] / (samples - size))
    return float(np.mean(found))


def completed(world: World, seed: int) -> npt.NDArray[np.bool_]:
    """Return which candidates are scored in full by exact stops: eight first, hard samples first, eight stages."""
    tasks, count, samples = world.val_TKN.shape
    weights_N = np.repeat(world.factor_T / samples, samples)
    outcomes_KN = np.moveaxis(world.val_TKN, 1, 0).reshape(count, tasks * samples)
    arrival = np.random.default_rng(seed).permutation(count)
    order_N = np.argsort(-(weights_N * (1 - outcomes_KN[arrival[:8]]).sum(axis=0)), kind="stable")
    lost_KN = np.cumsum(((1 - outcomes_KN) * weights_N)[:, order_N], axis=1)
    looks = [len(order_N) * stage // 8 - 1 for stage in range(1, 8)]
    kept, least = np.zeros(count, np.bool_), np.inf
    for place, candidate in enumerate(arrival):
        kept[candidate] = place < 8 or bool((lost_KN[candidate, looks] <= least + 1e-12).all())
        if kept[candidate]:
            least = min(least, float(lost_KN[candidate, -1]))
    return kept


def show(name: str, worlds: Iterator[World], stops: bool = False) -> None:
    """Print a row: bias and coverage of each estimate, then of the drop."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed, world in enumerate(worlds):
        kept_K = completed(world, seed) if stops else np.ones(len(world.truth_K), np.bool_)
        for key, values in estimates(world, kept_K, seed).items():
            found.setdefault(key, []).append(values)
    means = {key: np.mean(values, axis=0) for key, values in found.items()}
    cells = [f"{100 * means[key][0]:.1f}, {100 * means[key][1]:.0f}%" for key in ESTIMATES]
    predicted, measured, covered = means["drop"]
    print(
        f"| {name} | {' | '.join(cells)} | {100 * predicted:.1f} | {100 * measured:.1f} | {100 * covered:.0f}% |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the two real runs, for a second time")
    parser.add_argument("--repetitions", type=int, default=400)
    options = parser.parse_args()
    print(f"{options.repetitions} repetitions: bias and coverage of each estimate; drop predicted, measured, coverage")
    for setting in WORLDS:
        count, samples, correlation, spread = setting
        name = f"{count} candidates, n = {samples}, correlation {correlation}, spread {100 * spread:g}"
        show(name, simulated(setting, options.repetitions))
    with tempfile.TemporaryDirectory() as made:
        for setting_name in SETTINGS:
            for samples in (15, 60, 240):
                for stops in (False, True):
                    worlds = resampled(setting_name, options.folder or Path(made), samples, options.repetitions)
                    show(f"{setting_name}, n = {samples} a task{', exact stops' * stops}", worlds, stops)


if __name__ == "__main__":
    main()
