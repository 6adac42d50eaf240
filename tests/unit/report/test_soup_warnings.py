"""Proves that the page of a run of rewards warns of collapse, of saturated rewards and of a KL that ran away."""

import json
from pathlib import Path

import numpy as np
import pytest
from soup_run import LINES, build_soups, page_of

from pipeline.records import tables
from pipeline.report.data.estimates import Measure
from pipeline.report.page import build, summary
from pipeline.report.soups import soup_page
from pipeline.report.soups.completions import Shares, read_completions, repeated_words
from pipeline.report.soups.scene import read_scene
from pipeline.report.soups.warnings import collapse, saturation
from pipeline.train.policy_log import TRAINING

pytestmark = pytest.mark.slow
TRAINED = {"reward_std": 1.0, "kl_coef": 0.05, "entropy": 1.0, "length": 9.0, "eos": 0.5, "seconds": 2.0}


def train(folder: Path, expert: str, kl: np.ndarray, reward: np.ndarray, **result: object) -> None:
    """Write the curves and the result of `lines ppo`."""
    rows = [
        {"step": i, "episodes": 16 * i, "kl": float(k), "reward": float(r)} | TRAINED
        for i, (k, r) in enumerate(zip(kl, reward, strict=True))
    ]
    tables.write(folder / "training" / f"{expert}.parquet", rows, TRAINING)
    (folder / "training" / f"{expert}.json").write_text(json.dumps({"stopped": "", "kl_limit": None} | result))


def test_words_and_completions_are_counted() -> None:
    assert repeated_words("a library for a Library") == pytest.approx(0.4)
    assert repeated_words("") == repeated_words("...") == 0.0
    assert collapse(Shares(0.1, 0.0), Shares(0.9, 0.0)) == (1.9, "only 10% of them differ")
    assert collapse(Shares(0.9, 0.35), Shares(0.9, 0.0)) == (0.35, "35% of their words are repeated")
    assert collapse(Shares(0.9, 0.35), Shares(0.9, 0.34)) is None  # long texts repeat words
    assert collapse(Shares(0.21, 0.29), None) is None


def test_a_healthy_run_has_no_warnings(soups: Path) -> None:
    assert soup_page(Measure.read(soups)).warnings == []


def test_collapsed_completions_are_reported_with_their_points(tmp_path: Path) -> None:
    run = build_soups(draws=2)
    for recipe_id in [str(row["recipe_id"]) for row in run.candidates if row["arm"] == LINES][:7]:
        run.complete(recipe_id, "test", ["a library for a library"] * 120)
    (warning,) = page_of(run, tmp_path).warnings
    where = "λ = 0, λ = 0.1, λ = 0.2, λ = 0.3, λ = 0.4 and 2 more"
    assert warning == f"Completions of LiNeS collapse at {where}: at worst only 2% of them differ."
    scene = read_scene(Measure.read(tmp_path))
    assert scene is not None
    completions = read_completions(scene)
    assert completions is not None
    share = completions.shares[scene.soups[1].candidates[0].recipe_id]
    assert (share.distinct, share.repeated) == pytest.approx((1 / 60, 0.4))
    html, markdown = (path.read_text(encoding="utf-8") for path in build(tmp_path))
    assert f"<li>{warning}</li>" in html and f"**Warning:** {warning}" in markdown
    assert summary(tmp_path).sentences[0] == f"Warning: {warning}"


def test_saturation_needs_nearly_all_at_the_top_or_no_spread() -> None:
    top = np.concatenate([np.full(95, 0.999), np.zeros(5)])
    assert "95% of the SFT model's completions are at its maximum" in saturation(top, 1.0)
    assert "hardly varies" in saturation(np.linspace(0.2, 0.21, 50), 1.0)
    assert saturation(np.linspace(0, 1, 50), 1.0) == ""


def test_the_rewards_of_a_broken_policy_do_not_make_a_reward_saturated(tmp_path: Path) -> None:
    run = build_soups()
    policy = next(str(row["recipe_id"]) for row in run.candidates if row["group"] == "plain")
    run.samples["plain"][policy, "test"] = [-4000.0] * 60
    assert page_of(run, tmp_path).warnings == []


def test_saturated_and_equal_rewards_are_reported(tmp_path: Path) -> None:
    run = build_soups()
    start = (str(run.candidates[0]["recipe_id"]), "test")
    run.samples["plain"][start] = [3 * value + 1 for value in run.samples["faithful"][start]]
    (warning,) = page_of(run, tmp_path).warnings
    assert warning.startswith("faithful and plain are nearly the same reward") and "correlation 1.00" in warning
    run.samples["plain"][start] = [9.0] * 60
    (warning,) = page_of(run, tmp_path).warnings
    assert warning.startswith("The reward plain is saturated: 100%")


def test_a_policy_that_is_no_better_than_sft_gives_no_unit(tmp_path: Path) -> None:
    run = build_soups()
    policy = next(str(row["recipe_id"]) for row in run.candidates if row["group"] == "plain")
    run.samples["plain"][policy, "test"] = [0.0] * 60
    page = page_of(run, tmp_path)
    unit = "1 is, for faithful, the reward's own policy; for plain, one standard deviation over the SFT"
    assert unit in page.volumes[0].note


@pytest.mark.parametrize(
    ("kl", "result", "warned"),
    [(12.0, {}, False), (30.0, {}, True), (12.0, {"kl_limit": 10.0}, True), (30.0, {"kl_limit": 40.0}, False)],
)
def test_a_kl_that_ran_away_is_reported(tmp_path: Path, kl: float, result: dict[str, object], warned: bool) -> None:
    folder = build_soups().write(tmp_path)
    train(folder, "plain", np.linspace(0, kl, 200), np.linspace(0, 1, 200), **result)
    warnings = soup_page(Measure.read(folder)).warnings
    assert bool(warnings) is warned
    if warned:
        assert "The KL of the policy plain ran away" in warnings[0] and "still rising" in warnings[0]


def test_an_early_stop_and_the_curves_are_shown(tmp_path: Path) -> None:
    folder = build_soups().write(tmp_path)
    result = {"stopped": "kl 31.2 above kl.stop 20", "warnings": ["KL ran away: 31.2", "9 prompts were cut"]}
    train(folder, "plain", np.full(9, 3.0), np.zeros(9), **result)
    page = soup_page(Measure.read(folder))
    assert page.warnings == [
        "Training of the policy plain was stopped early: kl 31.2 above kl.stop 20.",
        "Training of the policy plain: 9 prompts were cut.",
    ]
    assert page.training and all(figure.panels for figure in page.training)
    html, markdown = (path.read_text(encoding="utf-8") for path in build(folder))
    assert 'id="training"' in html and "## Training" in markdown
