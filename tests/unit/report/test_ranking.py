"""Proves that a ranking is right, paired, and allows for many models: the best ties with no worse model too often."""

import numpy as np
import pytest

from pipeline.report.data.ranking import ranked
from search.intervals import TaskOutcomes, paired_difference


def models(rates: list[float], samples: int, seed: int, tasks: int = 2) -> list[list[TaskOutcomes]]:
    """Return outcomes that are right with these rates, and the harder samples wrong for all."""
    rng = np.random.default_rng(seed)
    hard = rng.random((tasks, samples))
    noise = rng.random((len(rates), tasks, samples))
    right = (0.7 * hard + 0.3 * noise) < np.asarray(rates)[:, None, None]
    return [[TaskOutcomes(f"t{t}", right[a, t].astype(float)) for t in range(tasks)] for a in range(len(rates))]


def test_the_order_is_that_of_the_means_and_equal_models_keep_theirs() -> None:
    given = models([0.5, 0.9, 0.5], 200, 0)
    ranks = ranked([given[0], given[1], given[0]])
    assert [rank.place for rank in ranks] == [1, 0, 2]
    assert ranks[0].behind.value == 0 and ranks[1].behind == ranks[2].behind
    assert not ranks[1].ties and ranks[0].ties


def test_two_models_have_the_interval_of_their_paired_difference() -> None:
    a, b = models([0.6, 0.55], 400, 1)
    worse = ranked([a, b])[1].behind
    pair = paired_difference([TaskOutcomes(x.task, x.a, y.a) for x, y in zip(a, b, strict=True)])
    assert worse.value == pytest.approx(abs(pair.value))
    assert worse.high - worse.low == pytest.approx(pair.high - pair.low, rel=0.1)


def test_more_models_widen_every_interval() -> None:
    given = models([0.6] * 12, 300, 2)
    few, many = ranked(given[:2]), ranked(given)
    widths = {rank.place: rank.behind.high - rank.behind.low for rank in many}
    pair = few[1].behind.high - few[1].behind.low
    assert max(widths[0], widths[1]) > 1.2 * pair
    assert sum(rank.ties for rank in many) == 12


def test_one_model_ties_with_itself() -> None:
    (only,) = ranked(models([0.5], 50, 3))
    assert only.ties and (only.behind.low, only.behind.high) == (0, 0)


def test_models_of_other_tasks_are_refused() -> None:
    a, b = models([0.5, 0.5], 20, 4)
    with pytest.raises(ValueError, match="all models must have the tasks"):
        ranked([a, b[:1]])
    with pytest.raises(ValueError, match="at least one model"):
        ranked([])
