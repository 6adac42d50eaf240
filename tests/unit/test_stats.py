"""Proves that sums merge: any division into shards gives the mean and standard error of the whole."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.stats import Stats, shards

OUTCOMES = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=60)


def stats_of(values: list[float]) -> Stats:
    return Stats(len(values), math.fsum(values), math.fsum(v * v for v in values))


@given(OUTCOMES, st.integers(1, 70))
def test_any_shard_size_gives_the_same_mean_and_error(values: list[float], size: int) -> None:
    parts = [stats_of(values[start:stop]) for start, stop in shards(len(values), size)]
    merged, whole = sum(parts, Stats()), stats_of(values)
    assert merged.n == whole.n
    assert merged.mean == pytest.approx(whole.mean, abs=1e-9)
    assert merged.std_err == pytest.approx(whole.std_err, rel=1e-6, abs=1e-3)


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.integers(1, 90))
def test_accuracies_are_the_same_to_the_bit(right: list[bool], size: int) -> None:
    parts = [stats_of([float(r) for r in right[start:stop]]) for start, stop in shards(len(right), size)]
    assert sum(parts, Stats()) == stats_of([float(r) for r in right])


@given(st.lists(st.integers(-20, 20).map(float), min_size=2, max_size=40))
def test_the_error_is_the_textbook_one(values: list[float]) -> None:
    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert stats_of(values).std_err == pytest.approx(expected, abs=1e-6)


def test_one_sample_has_no_error_and_none_has_no_mean() -> None:
    assert stats_of([0.5]).std_err == 0.0
    with pytest.raises(ValueError, match="no samples were scored"):
        _ = Stats().mean


@given(st.integers(0, 500), st.integers(1, 100))
def test_shards_cover_every_sample_once_in_order(count: int, size: int) -> None:
    ranges = list(shards(count, size))
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(count))
    assert all(0 < stop - start <= size for start, stop in ranges)


@pytest.mark.parametrize("size", [0, -3])
def test_a_shard_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"shard size: must be at least 1, got {size}"):
        list(shards(10, size))
