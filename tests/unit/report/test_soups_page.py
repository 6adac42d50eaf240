"""Proves that the page of a run of rewards agrees with its tables: points, verdicts, samples, the split it shows."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from soup_run import BEND, LINES, NAMES, PLAIN, UNTRUSTED, build_soups, known_soups, page_of

from pipeline.records import tables
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import Run
from pipeline.report.index import build_index
from pipeline.report.page import build, summary
from pipeline.report.soups import is_soup, soup_page
from pipeline.report.soups.completions import read_completions
from pipeline.report.soups.samples import sample_tables, shown_prompts
from pipeline.report.soups.scene import read_scene

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(soups: Path) -> tuple[str, str]:
    return tuple(path.read_text(encoding="utf-8") for path in build(soups))  # type: ignore[return-value]


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
