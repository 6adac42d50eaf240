"""Proves that fronts of rewards are compared rightly: hypervolumes, dominance, gaps, over resamples of prompts."""

from pathlib import Path

import numpy as np
import pytest
from soup_run import BEND, LINES, NAMES, PLAIN, PROMPTS, SoupBuilder, known_soups

from pipeline.recipe import Recipe
from pipeline.report.data.estimates import Measure
from pipeline.report.data.resamples import REWARD_RESAMPLES, resampled_interval, resampled_means
from pipeline.report.soups import soup_page
from pipeline.report.soups.comparisons import Contest, Fronts, contest, dominates, mean_gap, read_fronts
from pipeline.report.soups.scene import read_scene
from search.intervals import TaskOutcomes, mean_interval

pytestmark = pytest.mark.slow


def fronts_of(run: SoupBuilder, folder: Path) -> Fronts:
    scene = read_scene(Measure.read(run.write(folder)))
    assert scene is not None
    return read_fronts(scene)


def contest_of(run: SoupBuilder, folder: Path, arm: str = LINES, other: str = PLAIN) -> Contest:
    fronts = fronts_of(run, folder)
    arms = {soup.arm.name: soup.arm for soup in fronts.scene.soups}
    return contest(fronts, arms[arm], arms[other])


def test_hypervolumes_are_areas_in_units_of_the_policies(tmp_path: Path) -> None:
    """Above (0, 0): the ends of the bend are on the axes and add nothing."""
    fronts = fronts_of(known_soups({PLAIN: ((0.0, 0.0), (0.5, 0.5)), LINES: BEND}), tmp_path)
    assert fronts.corner_K == pytest.approx([0, 0], abs=1e-6)
    assert fronts.volumes.mean(PLAIN).value == pytest.approx(0.25, abs=1e-6)
    assert fronts.volumes.mean(LINES).value == pytest.approx(0.5 * 0.6, abs=1e-6)


def test_three_rewards_have_a_volume(tmp_path: Path) -> None:
    run = SoupBuilder(("a", "b", "c"))
    units = [tuple(float(i == j) for j in range(3)) for i in range(3)]

    def outcomes(mean: tuple[float, ...]) -> dict[str, dict[str, np.ndarray]]:
        return {name: {"test": np.full(60, mean[k], np.float32)} for k, name in enumerate(run.rewards)}

    run.add(("pre-trained", "pre-trained", "", ""), "", Recipe.make("zero"), outcomes((0, 0, 0)))
    for name, unit in zip(run.rewards, units, strict=True):
        run.add(("fine-tuned", "edit", "", ""), name, Recipe.make("single", weights=unit), outcomes(unit))
    for weights, mean in (((0.5, 0.5, 0.0), (0.5, 0.5, 0.5)), ((0.0, 0.5, 0.5), (0.0, 0.0, 0.0))):
        run.add((PLAIN, "merge", "", ""), "", Recipe.make("weighted", weights=weights), outcomes(mean))
    fronts = fronts_of(run, tmp_path)
    assert fronts.volumes.mean(PLAIN).value == pytest.approx(0.125, abs=1e-6)
    page = soup_page(Measure.read(tmp_path))
    assert [panel.title for panel in page.fronts[0].panels] == ["b against a", "c against a", "c against b"]


def test_a_front_that_is_the_other_plus_a_constant_dominates(tmp_path: Path) -> None:
    shifted = tuple((x + 0.03, y + 0.03) for x, y in BEND)
    run = known_soups({PLAIN: BEND, LINES: shifted})
    found = contest_of(run, tmp_path)
    assert (found.dominates, found.dominated, found.volume.verdict) == (1.0, 0.0, "better")
    (verdict,) = soup_page(Measure.read(tmp_path)).verdicts
    assert verdict.sentences[0].startswith(f"Its front dominates the front of {PLAIN}: hypervolume +")
    assert [row[-1].plain for row in verdict.table.rows] == ["dominates in 100%"]


def test_one_better_point_is_not_dominance(tmp_path: Path) -> None:
    better = (*BEND[:-1], (0.95, 0.1))
    run = known_soups({PLAIN: BEND, LINES: better})
    found = contest_of(run, tmp_path)
    assert (found.dominates, found.volume.verdict) == (0.0, "better")
    (verdict,) = soup_page(Measure.read(tmp_path)).verdicts
    assert "without dominating it" in verdict.sentences[0]


def test_dominance_that_few_resamples_confirm_is_unsure(tmp_path: Path) -> None:
    """One of the points is better by less than its own noise."""
    shifted = tuple((x + 0.03, y + 0.03) for x, y in BEND)
    run = known_soups({PLAIN: BEND, LINES: shifted})
    own = np.random.default_rng(3).normal(scale=0.3, size=PROMPTS["test"])
    recipe_id = next(str(row["recipe_id"]) for row in run.candidates if row["arm"] == LINES)
    for name in NAMES:
        key = (recipe_id, "test")
        run.samples[name][key] = list(np.array(run.samples[name][key]) + own - own.mean())
    found = contest_of(run, tmp_path)
    assert 0.2 < found.dominates < 0.975
    (verdict,) = soup_page(Measure.read(tmp_path)).verdicts
    assert "dominates" not in " ".join(verdict.sentences)
    assert verdict.table.rows[0][-1].text == "unsure: dominates"


def test_equal_fronts_tie_at_exactly_zero(tmp_path: Path) -> None:
    found = contest_of(known_soups({PLAIN: BEND, LINES: BEND}, draws=3), tmp_path)
    assert (found.volume.value, found.volume.low, found.volume.high) == (0, 0, 0)
    assert (found.dominates, found.dominated, found.volume.verdict) == (0, 0, "tie")
    assert found.gap is not None and (found.gap.value, found.gap.low, found.gap.high) == (0, 0, 0)


def test_swapped_arms_give_mirrored_results(soups: Path) -> None:
    scene = read_scene(Measure.read(soups))
    assert scene is not None
    fronts = read_fronts(scene)
    arms = [soup.arm for soup in scene.soups[:2]]
    one, two = contest(fronts, *arms), contest(fronts, *arms[::-1])
    assert one.gap is not None and two.gap is not None
    for a, b in ((one.volume, two.volume), (one.gap, two.gap)):
        assert (a.value, a.low, a.high) == pytest.approx((-b.value, -b.high, -b.low), abs=1e-9)
    assert (one.dominates, one.dominated) == (two.dominated, two.dominates)


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        ([[1, 1]], [[0, 0], [1, 0]], True),
        ([[1, 1]], [[1, 1]], False),
        ([[1, 0], [0, 1]], [[0.5, 0.5]], False),
        ([[1, 0], [0, 2]], [[1, 0], [0, 1]], False),
    ],
)
def test_dominance_is_over_every_point(own: list[list[float]], other: list[list[float]], expected: bool) -> None:
    assert dominates(np.array(own, float), np.array(other, float)) is expected


def test_the_gap_is_the_mean_height_between_two_lines() -> None:
    own, other = np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([[1.0, 0.5], [3.0, -1.5], [1.5, 0.0]])
    assert mean_gap(own, other) == pytest.approx(0.5)
    assert mean_gap(other, own) == pytest.approx(-0.5)
    assert np.isnan(mean_gap(own, other + 5))


def test_correlated_completions_count_for_less_than_as_many_prompts() -> None:
    rng = np.random.default_rng(0)
    outcomes = np.repeat(rng.normal(size=100), 8) + 0.1 * rng.normal(size=800)
    found = resampled_interval(resampled_means(outcomes[None], REWARD_RESAMPLES, draws=8)[:, 0], 100)
    naive = mean_interval([TaskOutcomes("reward", outcomes)])
    assert found.value == pytest.approx(naive.value)
    assert found.high - found.low > 2 * (naive.high - naive.low)
    # The textbook standard error of 100 prompt means.
    std_err = outcomes.reshape(100, 8).mean(axis=1).std(ddof=1) / 10
    assert found.high - found.low == pytest.approx(2 * 1.96 * std_err, rel=0.1)


def test_resamples_are_the_same_for_all_rows_and_at_every_call() -> None:
    rng = np.random.default_rng(1)
    outcomes = rng.normal(size=(3, 60))
    outcomes[2] = outcomes[0] + 0.25
    means_SA = resampled_means(outcomes, 50, draws=2)
    assert means_SA.shape == (1 + 50, 3)
    np.testing.assert_allclose(means_SA[:, 2] - means_SA[:, 0], 0.25, atol=1e-10)
    np.testing.assert_array_equal(means_SA, resampled_means(outcomes, 50, draws=2))
    with pytest.raises(ValueError, match="7 outcomes for each prompt, got 60"):
        resampled_means(outcomes, 50, draws=7)
