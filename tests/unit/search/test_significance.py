"""Proves the paired tests against enumeration and worked examples, and the coverage of intervals."""

from itertools import product

import numpy as np
import pytest

from search.intervals import TaskOutcomes, paired_difference
from search.significance import detectable, holm, mcnemar, sign_flip


def outcomes(won: int, lost: int, same: int = 5) -> tuple[list[int], list[int]]:
    """Two models that differ on won + lost samples."""
    return [1] * won + [0] * lost + [1] * same, [0] * won + [1] * lost + [1] * same


def enumerated(a: list[float], b: list[float]) -> float:
    """The slow oracle: the share of all sign patterns of the differences whose sum is at least as far from 0."""
    d = np.asarray(a, float) - np.asarray(b, float)
    sums = [abs(float(np.dot(signs, d))) for signs in product((1, -1), repeat=len(d))]
    return float(np.mean([s >= abs(d.sum()) - 1e-9 for s in sums]))


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (3, 1), (5, 5), (0, 6), (8, 2), (7, 4)])
def test_mcnemar_is_the_share_of_sign_patterns_that_go_as_far(won: int, lost: int) -> None:
    a, b = outcomes(won, lost, same=1)
    assert mcnemar(a, b) == pytest.approx(enumerated(a, b))


def test_mcnemar_by_hand() -> None:
    assert mcnemar(*outcomes(0, 6)) == pytest.approx(2 / 64)
    with pytest.raises(ValueError, match="0 or 1"):
        mcnemar([0.5, 1], [1, 1])


def test_sign_flips_agree_with_enumeration_on_floats_and_with_mcnemar_on_bits() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.4, 1, 11).tolist(), rng.normal(0, 1, 11).tolist()
    assert sign_flip(a, b, 100_000) == pytest.approx(enumerated(a, b), abs=0.006)
    bits = outcomes(9, 3)
    assert sign_flip(*bits, 100_000) == pytest.approx(mcnemar(*bits), abs=0.006)
    assert sign_flip([1.0, 2.0], [1.0, 2.0]) == 1.0


def test_no_permutation_test_gives_a_p_value_of_0() -> None:
    assert sign_flip(np.ones(60), np.zeros(60), 99) == pytest.approx(0.01)


def test_holm_by_hand() -> None:
    """Four p-values, in order 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, and never below one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_a_detectable_change_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(2000) < 0.8
    found, shifts = 0, []
    for _ in range(200):
        flips = rng.random(2000)
        now = np.where(before, flips > 0.0625, flips < 0.1)  # 5 points of 80 lost, 2 of 20 won
        shifts.append(detectable(now, before, 0.05))
        found += mcnemar(now, before) <= 0.05
    assert np.mean(shifts) == pytest.approx(0.0164, abs=0.001)  # 2.8 * sqrt(0.07 / 2000)
    assert found / 200 > 0.97  # the loss is 3 points, nearly twice what is detectable


def test_few_samples_are_never_significant_and_not_detectable() -> None:
    assert mcnemar([0] * 5, [1] * 5) > 0.05 and detectable([0] * 5, [1] * 5, 0.05) > 1
    assert mcnemar([0] * 6, [1] * 6) <= 0.05 and detectable([0] * 6, [1] * 6, 0.05) == pytest.approx(1)


def test_the_bootstrap_interval_covers_the_true_difference() -> None:
    rng, covered = np.random.default_rng(1), 0
    for i in range(300):
        u = rng.random(300)
        a, b = u < 0.7, np.where(rng.random(300) < 0.2, rng.random(300) < 0.65, u < 0.7)
        found = paired_difference([TaskOutcomes("t", a.astype(int), b.astype(int))], resamples=400, seed=i)
        covered += found.low <= 0.01 <= found.high  # 0.2 * (0.7 - 0.65)
    assert 0.91 <= covered / 300 <= 0.98


def test_unequal_lengths_and_infinities_are_refused() -> None:
    with pytest.raises(ValueError, match="same samples"):
        mcnemar([1, 0], [1])
    with pytest.raises(ValueError, match="finite"):
        sign_flip([float("nan")], [1.0])
