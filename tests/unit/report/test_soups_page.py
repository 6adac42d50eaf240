"""Proves that the report of a run of rewards agrees with its tables: fronts, dominance, samples, warnings."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from soup_run import LINES, PLAIN, PROMPTS, UNTRUSTED, SoupBuilder, build_soups

from pipeline.recipe import Recipe
from pipeline.records import tables
from pipeline.report.data.estimates import Measure
from pipeline.report.data.resamples import REWARD_RESAMPLES, resampled_interval, resampled_means
from pipeline.report.data.run import Run
from pipeline.report.index import build_index
from pipeline.report.page import build, summary
from pipeline.report.soups import SoupPage, is_soup, soup_page
from pipeline.report.soups.comparisons import Contest, Fronts, contest, dominates, mean_gap, read_fronts
from pipeline.report.soups.completions import Shares, read_completions, repeated_words
from pipeline.report.soups.samples import sample_tables, shown_prompts
from pipeline.report.soups.scene import read_scene
from pipeline.report.soups.warnings import collapse, saturation
from pipeline.train.policy_log import TRAINING
from search.intervals import TaskOutcomes, mean_interval

pytestmark = pytest.mark.slow
NAMES = ("faithful", "plain")
BEND = ((0.0, 0.8), (0.5, 0.6), (0.9, 0.0))
TRAINED = {"reward_std": 1.0, "kl_coef": 0.05, "entropy": 1.0, "length": 9.0, "eos": 0.5, "seconds": 2.0}


def known_soups(
    fronts: Mapping[str, tuple[tuple[float, float], ...]], noise: float = 0.05, draws: int = 1
) -> SoupBuilder:
    """Arms with these mean rewards; SFT is at (0, 0), the policies at (1, 0) and (0, 1), and all share their noise."""
    run, rng = SoupBuilder(draws=draws), np.random.default_rng(7)
    shared = rng.normal(size=(2, PROMPTS["test"] * draws))
    shared = noise * (shared - shared.mean(axis=1, keepdims=True))

    def outcomes(mean: tuple[float, float]) -> dict[str, dict[str, np.ndarray]]:
        return {name: {"test": (mean[k] + shared[k]).astype(np.float32)} for k, name in enumerate(NAMES)}

    run.add(("pre-trained", "pre-trained", "", ""), "", Recipe.make("zero"), outcomes((0, 0)))
    for i, name in enumerate(NAMES):
        own = (1.0 - i, float(i))
        run.add(("fine-tuned", "edit", "", ""), name, Recipe.make("single", weights=own), outcomes(own))
    for number, (name, means) in enumerate(fronts.items()):
        for i, mean in enumerate(means):
            weight = (i + 1) / (len(means) + 1)
            scaling = "constant" if name == PLAIN else "linear"
            recipe = Recipe.make("weighted", scaling, 1 + number, 1, (weight, 1 - weight))
            control = name.partition(", ")[2]
            arm = (name, "merge", control and LINES, control)
            run.add(arm, "", recipe, outcomes(mean), **{"lambda": weight})
    return run


def fronts_of(run: SoupBuilder, folder: Path) -> Fronts:
    scene = read_scene(Measure.read(run.write(folder)))
    assert scene is not None
    return read_fronts(scene)


def contest_of(run: SoupBuilder, folder: Path, arm: str = LINES, other: str = PLAIN) -> Contest:
    fronts = fronts_of(run, folder)
    arms = {soup.arm.name: soup.arm for soup in fronts.scene.soups}
    return contest(fronts, arms[arm], arms[other])


def page_of(run: SoupBuilder, folder: Path) -> SoupPage:
    return soup_page(Measure.read(run.write(folder)))


def train(folder: Path, expert: str, kl: np.ndarray, reward: np.ndarray, **result: object) -> None:
    """Write the curves and the result of `lines ppo`."""
    rows = [
        {"step": i, "episodes": 16 * i, "kl": float(k), "reward": float(r)} | TRAINED
        for i, (k, r) in enumerate(zip(kl, reward, strict=True))
    ]
    tables.write(folder / "training" / f"{expert}.parquet", rows, TRAINING)
    (folder / "training" / f"{expert}.json").write_text(json.dumps({"stopped": "", "kl_limit": None} | result))


@pytest.fixture(scope="module")
def soups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_soups(draws=2).write(tmp_path_factory.mktemp("soups"))


@pytest.fixture(scope="module")
def written(soups: Path) -> tuple[str, str]:
    return tuple(path.read_text(encoding="utf-8") for path in build(soups))  # type: ignore[return-value]


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


def test_points_and_references_have_the_means_of_the_scores_table(soups: Path) -> None:
    page = soup_page(Measure.read(soups))
    rows = [r for r in tables.read(soups / "scores.parquet", tables.SCORES).to_pylist() if r["split"] == "test"]
    values = {(r["arm"], r["recipe_id"], r["task"]): r["value"] for r in rows}
    assert page.points is not None and page.references is not None
    assert len(page.points.rows) == 4 * 11
    for arm, _, *shown, _, _, recipe_id in page.points.rows:
        assert [e.text for e in shown] == [f"{values[arm.text, recipe_id.text, n]:.3f}" for n in NAMES]
    labels = [row[1].text for row in page.points.rows[:11]]
    assert labels[0] == "λ = 0" and labels[3] == "λ = 0.3" and labels[-1] == "λ = 1"
    assert [row[0].text for row in page.references.rows] == ["SFT model", "policy faithful", "policy plain"]


def test_verdicts_begin_with_the_plain_soup_and_continue_with_the_controls(soups: Path) -> None:
    found = summary(soups).sentences
    assert len(found) == 2 and re.match(rf"LiNeS: Its front (dominates|beats) the front of {PLAIN}", found[0])
    assert "Here the profile over depth matters: it beats every matched control." in found[0]
    assert "60 prompts with 2 completions each" in found[1] and "one training run" in found[1]


def test_a_constant_of_equal_mean_that_ties_leaves_depth_without_proof(tmp_path: Path) -> None:
    low = tuple((x - 0.1, y - 0.1) for x, y in BEND)
    run = known_soups({PLAIN: low, LINES: BEND, f"{LINES}, uniform": BEND, f"{LINES}, reversed": low})
    (verdict,) = page_of(run, tmp_path).verdicts
    assert "not shown to matter: the constant of equal mean ties with it." in " ".join(verdict.sentences)
    assert "Of its 2 matched controls it beats the reversed depth." in verdict.sentences


def test_several_policies_of_one_reward_need_no_note_on_seeds(tmp_path: Path) -> None:
    folder = build_soups().write(tmp_path)
    provenance = json.loads((folder / "provenance.json").read_text())
    provenance["targets"] |= {"again": "plain"}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    assert "training run" not in soup_page(Measure.read(folder)).note


def test_without_test_scores_the_report_is_of_validation(tmp_path: Path) -> None:
    page = page_of(build_soups(splits=("val",)), tmp_path)
    assert page.note.startswith("Validation split: 40 prompts; nothing was chosen. Not every arm was scored in full")
    assert page.verdicts and page.samples[0].title.endswith("of 40")


def test_one_arm_without_test_scores_moves_all_to_validation(tmp_path: Path) -> None:
    run = build_soups()
    run.scores = [r for r in run.scores if (r["arm"], r["split"]) != (f"{LINES}, uniform", "test")]
    assert page_of(run, tmp_path).note.startswith("Validation split")


def test_an_index_of_runs_counts_the_results_of_fronts(soups: Path, finished_run: Path, tmp_path: Path) -> None:
    html, markdown, overview = build_index([soups, finished_run], tmp_path)
    assert overview.rows[0][0].text == "toy soups"
    assert overview.rows[0][1].text == "better: hypervolume · plain at equal faithful"
    assert overview.rows[0][2].text == "better: 4 of 4"
    assert "Hypervolumes" in html.read_text(encoding="utf-8") and "Hypervolumes" in markdown.read_text(encoding="utf-8")


def test_a_run_with_nothing_scored_still_has_a_page(tmp_path: Path) -> None:
    run = build_soups()
    run.scores = []
    html, markdown = build(run.write(tmp_path))
    assert "No candidate has been scored by every reward yet." in html.read_text()
    assert "nothing to compare" in markdown.read_text()


def test_only_references_scored_yet(tmp_path: Path) -> None:
    run = build_soups()
    run.scores = [row for row in run.scores if row["arm"] in ("pre-trained", "fine-tuned")]
    page = page_of(run, tmp_path)
    assert page.references is not None and len(page.references.rows) == 3 and not page.volumes and not page.fronts
    build(tmp_path)


def test_names_and_completions_are_shown_but_never_run(written: tuple[str, str]) -> None:
    assert "<script>alert" not in written[0] and "&lt;script&gt;alert" in written[0]
    outside_code = re.sub(r"```.*?```", "", written[1], flags=re.S)
    assert "<script>" not in outside_code and "&lt;script&gt;alert('\\|')" in outside_code


def test_hovers_have_lambda_both_rewards_and_a_completion(written: tuple[str, str]) -> None:
    found = re.findall(r'<script type="application/json">(.*?)</script>', written[0], flags=re.S)
    (spec,) = (json.loads(text) for text in found)
    lines = next(t for t in spec["data"] if t["name"] == LINES and t["mode"] == "lines+markers")
    assert re.match(
        r"LiNeS λ = 0\.3<br>faithful \d\.\d+ \[.*?\]<br>plain \d\.\d+ \[.*?\]<br>“a &lt;script&gt;",
        lines["hovertext"][3],
    )
    names = [trace["name"] for trace in spec["data"]]
    # A shade and a line each, lines alone of the controls, and both references.
    assert names.count(LINES) == names.count(PLAIN) == 2 and len(names) == 8
    assert set(re.findall(r'data-arm="(.*?)"', written[0])) == set(names)


def test_markdown_has_the_same_tables(written: tuple[str, str]) -> None:
    titles = re.findall(r"<h3>(.*?)</h3>", written[0])
    shown = [title for title in titles if title != "Fronts"]
    assert {"Hypervolumes", "Every point", "Prompt 11 of 60"} <= set(shown)
    assert all(f"### {title}" in written[1] for title in shown)


def test_samples_are_side_by_side_with_their_rewards(soups: Path) -> None:
    scene = read_scene(Measure.read(soups))
    assert scene is not None
    completions = read_completions(scene)
    assert completions is not None
    found = sample_tables(scene, completions)
    assert shown_prompts(60) == [10, 30, 50] and [t.title for t in found] == [f"Prompt {i} of 60" for i in (11, 31, 51)]
    assert found[0].columns == ("point", PLAIN, LINES) and len(found[0].rows) == 11
    candidate = scene.soups[1].candidates[4]
    outcomes = scene.outcomes(candidate, "plain")
    assert outcomes is not None
    cell = found[1].rows[4][2]
    assert cell.text == f"“{completions.texts[candidate.recipe_id][60]}”" and f"plain {outcomes[60]:.3f}" in cell.detail
    assert UNTRUSTED in found[0].rows[0][1].text and "Reference: “number 30”" in found[1].note


def test_without_completions_there_are_no_samples(tmp_path: Path) -> None:
    run = build_soups()
    run.texts = {}
    page = page_of(run, tmp_path)
    assert page.samples == [] and page.points is not None and "distinct" not in page.points.columns
    html = build(tmp_path)[0].read_text(encoding="utf-8")
    assert 'id="samples"' not in html and "#samples" not in html.split("</style>")[1]


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


def test_adaptive_points_are_not_joined_and_show_every_searched_dimension(tmp_path: Path) -> None:
    run = known_soups({LINES: BEND})
    row = next(row for row in run.candidates if row["arm"] == LINES)
    row |= {"alpha": 0.5, "point": json.dumps({"lambda": 0.25, "alpha": 0.5})}
    scene = read_scene(Measure.read(run.write(tmp_path)))
    assert scene is not None and not scene.soups[0].joined
    assert scene.soups[0].labels[0] == "λ = 0.25, alpha = 0.5"


def test_runs_of_accuracies_are_not_soups(finished_run: Path, soups: Path) -> None:
    assert is_soup(Measure.read(soups).run) and not is_soup(Measure.read(finished_run).run)
    one = Measure.read(soups).run
    alone = {**one.provenance, "tasks": one.provenance["tasks"][:1]}
    assert not is_soup(replace(one, provenance=alone))


@pytest.mark.parametrize(("draws", "soup"), [(1, False), (2, True)])
def test_a_run_of_accuracies_has_the_page_of_other_runs_unless_prompts_repeat(
    tmp_path: Path, draws: int, soup: bool
) -> None:
    builder = build_soups(draws=draws)
    for score in builder.scores:
        score["metric"] = "accuracy"
    assert is_soup(Run.read(builder.write(tmp_path))) == soup
