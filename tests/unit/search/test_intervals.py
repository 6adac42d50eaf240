"""Proves bootstrap intervals: exact values, pairing, shared tasks, coverage and verdicts."""

import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.intervals import Interval, TaskOutcomes, linearised_ratio, mean_interval, paired_difference

Array = npt.NDArray[np.float64]


def correlated(rng: np.random.Generator, n: int, p: float, gain: float) -> tuple[Array, Array]:
    """Outcomes of b with accuracy p, and of a: b with a share `gain` of its errors corrected and some new errors."""
    b = rng.random(n) < p
    a = np.where(b, rng.random(n) < 0.95, rng.random(n) < gain)
    return a.astype(float), b.astype(float)


@given(st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20), min_size=1, max_size=5))
def test_the_value_is_the_mean_over_cells_whatever_their_sizes(pairs: list[list[tuple[bool, bool]]]) -> None:
    cells = [TaskOutcomes(f"t{i}", *np.array(pair).T) for i, pair in enumerate(pairs)]
    expected = np.mean([np.mean([float(a) - float(b) for a, b in pair]) for pair in pairs])
    result = paired_difference(cells, resamples=20)
    assert result.value == pytest.approx(float(expected))
    assert result.n == sum(map(len, pairs))
    first = [a for a, _ in pairs[0]]
    assert mean_interval([TaskOutcomes("t", first)], 20).value == pytest.approx(float(np.mean(first)))


def test_a_difference_that_is_the_same_on_every_sample_is_certain() -> None:
    a = np.linspace(0.0, 1.0, 50)
    shifted = paired_difference([TaskOutcomes("t", a + 0.25, a)])
    assert [shifted.value, shifted.low, shifted.high] == pytest.approx([0.25] * 3)
    same = paired_difference([TaskOutcomes("t", a, a)])
    assert (same.value, same.low, same.high, same.verdict) == (0.0, 0.0, 0.0, "tie")


def test_both_directions_of_a_comparison_agree() -> None:
    for seed in range(20):
        a, b = correlated(np.random.default_rng(seed), 100, 0.7, 0.25)
        there, back = (
            paired_difference([TaskOutcomes("t", a, b)], 200),
            paired_difference([TaskOutcomes("t", b, a)], 200),
        )
        assert there.verdict == {"better": "worse", "tie": "tie", "worse": "better"}[back.verdict]
        if there.value:
            assert [there.value, there.low, there.high] == pytest.approx([-back.value, -back.high, -back.low])


def test_an_interval_that_ends_at_0_is_a_tie() -> None:
    rng = np.random.default_rng(0)
    ends = []
    for _ in range(200):
        cells = [TaskOutcomes(f"t{i}", rng.random(20) < 0.8, rng.random(20) < 0.7) for i in range(7)]
        found = paired_difference(cells, resamples=200)
        ends += [(found.low, found.verdict)]
    assert all(low == 0 or abs(low) > 1e-9 for low, _ in ends)
    assert {verdict for low, verdict in ends if low == 0} == {"tie"}


def test_pairing_narrows_the_interval() -> None:
    a, b = correlated(np.random.default_rng(0), 1500, 0.7, 0.1)
    paired = paired_difference([TaskOutcomes("t", a, b)])
    unpaired = paired_difference([TaskOutcomes("t", np.sort(a), np.random.default_rng(1).permutation(b))])
    assert unpaired.value == pytest.approx(paired.value)
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


def test_cells_of_one_task_share_their_samples() -> None:
    # The same cell twice adds no information; the same numbers on another task do.
    a, b = correlated(np.random.default_rng(0), 400, 0.7, 0.2)
    once = paired_difference([TaskOutcomes("t", a, b)])
    twice = paired_difference([TaskOutcomes("t", a, b), TaskOutcomes("t", a, b)])
    elsewhere = paired_difference([TaskOutcomes("t", a, b), TaskOutcomes("u", a, b)])
    assert [twice.low, twice.high, twice.n] == pytest.approx([once.low, once.high, 400])
    assert elsewhere.n == 800
    assert elsewhere.high - elsewhere.low == pytest.approx((once.high - once.low) / np.sqrt(2), rel=0.1)


def test_the_interval_equals_that_of_resampled_indices() -> None:
    # The slow oracle: draw the samples themselves, for several cells of a task at once.
    rng = np.random.default_rng(5)
    cells = [correlated(rng, 300, p, 0.2) for p in (0.5, 0.7, 0.9)]
    result = paired_difference([TaskOutcomes("t", a, b) for a, b in cells], resamples=20_000)
    index = rng.integers(0, 300, (20_000, 300))
    slow = np.mean([(a - b)[index].mean(axis=1) for a, b in cells], axis=0)
    assert [result.low, result.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist(), abs=1.5e-3)


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 500)
    result = mean_interval([TaskOutcomes("t", values)], resamples=4000, level=0.9)
    error = values.std(ddof=1) / np.sqrt(500)
    assert result.value == pytest.approx(values.mean())
    assert (result.high - result.low) / 2 == pytest.approx(1.645 * error, rel=0.08)


def test_intervals_cover_the_truth_about_as_often_as_their_level() -> None:
    rng = np.random.default_rng(0)
    truth = 0.5 * (0.6 * 0.95 + 0.4 * 0.2 - 0.6) + 0.5 * (0.8 * 0.95 + 0.2 * 0.2 - 0.8)
    covered = 0
    for trial in range(300):
        cells = [TaskOutcomes(f"t{p}", *correlated(rng, 250, p, 0.2)) for p in (0.6, 0.8)]
        interval = paired_difference(cells, resamples=400, seed=trial)
        covered += interval.low <= truth <= interval.high
    # 300 trials at 95 % give 285 with a standard deviation of 4.
    assert 270 <= covered <= 297


def test_the_seed_decides() -> None:
    cells = [TaskOutcomes("t", *correlated(np.random.default_rng(0), 200, 0.5, 0.2))]
    assert paired_difference(cells, seed=1) == paired_difference(cells, seed=1)
    assert paired_difference(cells, seed=1) != paired_difference(cells, seed=2)


def test_verdicts() -> None:
    assert Interval(0.1, 0.05, 0.2, 9).verdict == "better"
    assert Interval(-0.1, -0.2, -0.05, 9).verdict == "worse"
    assert Interval(0.1, 0.0, 0.2, 9).verdict == "tie"
    assert Interval(0.1, -0.1, 0.2, 9).verdict == "tie"


def test_the_grid_of_a_report_takes_about_a_second_at_most() -> None:
    rng = np.random.default_rng(0)
    cells = [TaskOutcomes(f"t{i % 20}", *correlated(rng, 1500, 0.7, 0.2)) for i in range(64)]
    start = time.process_time()
    paired_difference(cells)
    assert time.process_time() - start < 1.0


def test_bad_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one cell"):
        paired_difference([])
    with pytest.raises(ValueError, match="task 't': a has 2 samples and b has 3"):
        paired_difference([TaskOutcomes("t", [0, 1], [0, 1, 1])])
    with pytest.raises(ValueError, match="task 't': its cells must hold the same samples, got 2 and 1"):
        mean_interval([TaskOutcomes("t", [0, 1]), TaskOutcomes("t", [0])])
    with pytest.raises(ValueError, match="task 't': outcomes must be finite"):
        mean_interval([TaskOutcomes("t", [0.0, np.nan])])
    with pytest.raises(ValueError, match="task 't': outcomes must be finite"):
        mean_interval([TaskOutcomes("t", [])])
    with pytest.raises(ValueError, match="no b to compare"):
        paired_difference([TaskOutcomes("t", [0, 1])])
    with pytest.raises(ValueError, match="has a b: use paired_difference"):
        mean_interval([TaskOutcomes("t", [0, 1], [0, 1])])
    with pytest.raises(ValueError, match="level in"):
        mean_interval([TaskOutcomes("t", [0, 1])], level=95)


def test_the_interval_of_a_ratio_is_that_of_its_own_bootstrap() -> None:
    """Parts and sizes drawn together: the plain bootstrap of the parts is six times as wide."""
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(5, 1, 400)
    bits = sizes * rng.normal(0.9, 0.15, 400)
    parts = bits / sizes.mean()
    found = mean_interval([TaskOutcomes("t", linearised_ratio(parts, sizes))])
    drawn = rng.integers(0, 400, (2000, 400))
    low, high = np.quantile(bits[drawn].sum(1) / sizes[drawn].sum(1), [0.025, 0.975])
    assert found.value == pytest.approx(bits.sum() / sizes.sum())
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.1 * (high - low))
    plain = mean_interval([TaskOutcomes("t", parts)])
    assert plain.high - plain.low > 4 * (high - low)


def test_a_lower_value_may_be_the_better_one() -> None:
    words = [replace(Interval(0.0, low, high, 1), lower_is_better=True).verdict for low, high in ((-2, -1), (1, 2))]
    assert words == ["better", "worse"] and Interval(0.0, -1, 0, 1, lower_is_better=True).verdict == "tie"
