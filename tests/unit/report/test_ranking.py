"""Proves that a ranking is right, paired, and allows for many models: the best ties with no worse model too often."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.report.data.estimates import Measure
from pipeline.report.data.objective_outcomes import objective_outcomes
from pipeline.report.data.ranking import ranked
from search.intervals import TaskOutcomes, mean_interval, paired_difference


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


def test_few_samples_tell_nothing_apart_and_equal_models_still_tie() -> None:
    right, wrong = [TaskOutcomes("t", [1.0] * 4)], [TaskOutcomes("t", [0.0, 0.0, 0.0, 1.0])]
    ranks = ranked([right, wrong, right])
    assert [rank.ties for rank in ranks] == [True, True, True]
    assert ranks[-1].behind.high == np.inf and ranks[1].behind.high == 0


@pytest.mark.parametrize(("samples", "scale", "ties"), [(1, 1, True), (4, 1, True), (8, 1, False), (8, 1e-9, False)])
def test_a_constant_difference_is_shown_by_enough_samples(samples: int, scale: float, ties: bool) -> None:
    one = np.arange(samples, dtype=float) * scale
    ranks = ranked([[TaskOutcomes("t", one + shift * scale)] for shift in (0, 1, 0)])
    assert [rank.ties for rank in ranks] == [True, ties, ties]
    assert ranks[1].behind.high == (np.inf if ties else scale)


def test_small_differences_keep_their_variance() -> None:
    given = np.random.default_rng(0).normal(size=(2, 500))
    large, small = (ranked([[TaskOutcomes("t", row * scale)] for row in given])[1].behind for scale in (1, 1e-8))
    assert small.high - small.low == pytest.approx((large.high - large.low) * 1e-8, abs=1e-11)


def test_an_equally_good_model_is_seldom_left_out() -> None:
    wrong = sum(any(not r.ties for r in ranked(models([0.7] * 8, 60, seed))) for seed in range(60))
    assert wrong <= 7  # 3 are expected; 8 or more have a probability of 1%


def test_the_objective_of_an_edit_is_a_mean_over_samples(finished_run: Path) -> None:
    measure = Measure.read(finished_run)
    arm = next(a for a in measure.arms if a.kind == "edit" and a.role == "lines")
    experts = measure.bench(arm).experts
    places = {role: measure.bench(arm).over(role) for role in ("target", "control")}
    everywhere = (*places["target"], *places["control"])
    cells = objective_outcomes(measure, arm, everywhere, ["2 * target + control"])
    parts = {role: measure.normalised(arm.chosen, p, "test", role == "target").value for role, p in places.items()}
    assert mean_interval(cells).value == pytest.approx(2 * parts["target"] + parts["control"])
    worst = objective_outcomes(measure, arm, [p for p in everywhere if p.group == experts[0]], ["worst"])
    scores = [
        s for (_, at), s in measure.run.scored(arm.chosen(experts[0])).items() if at == "test" and s.role != "ood"
    ]
    assert mean_interval(worst).value == pytest.approx(min(s.normalised for s in scores))
