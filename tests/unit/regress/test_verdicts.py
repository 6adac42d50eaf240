"""Proves that unchanged runs raise no more alarms than `level`, that losses are found, and the verdicts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nights import BITS, TASKS, N, held, night

from pipeline.regress.baseline import read_baseline, write_baseline
from pipeline.regress.history import make_history, sparkline
from pipeline.regress.history_page import write_history
from pipeline.regress.junit import junit_report
from pipeline.regress.snapshot import baseline_samples
from pipeline.regress.text import comparison_markdown
from search.intervals import TaskOutcomes, mean_interval


@pytest.mark.slow
def test_500_nights_without_a_change_raise_no_more_alarms_than_the_level() -> None:
    """The tolerance is 0, so that only the tests decide: a two-sided level of 0.1 is at most 0.05 on either side."""
    pairs = ((night({}, 2 * i), night({}, 2 * i + 1)) for i in range(500))
    alarms = sum(bool(held(*pair, tolerance=0, level=0.1).having("regressed")) for pair in pairs)
    assert 1 <= alarms <= 37  # 25 expected at most; 37 is two and a half standard errors above


@pytest.mark.parametrize(("metric", "lost"), [("accuracy", {"c": 0.6}), ("reward", {"c": -0.6})])
def test_a_loss_on_one_of_four_tasks_is_found_there_and_nowhere_else(metric: str, lost: dict[str, float]) -> None:
    found = [held(night(lost, 1000 + i, metric=metric), night({}, i, metric=metric)) for i in range(6)]
    assert sum([c.task for c in f.having("regressed")] == ["c"] for f in found) >= 5


def test_verdicts() -> None:
    before = night({}, 0)
    assert {c.verdict for c in held(before, before).comparisons} == {"equal"}
    other = replace(before, rows=tuple(replace(row, recipe_id="other weights") for row in before.rows))
    assert {c.verdict for c in held(other, before).comparisons} == {"no evidence"}, "200 equal ones leave 1.8% unseen"
    assert {c.verdict for c in held(other, before, tolerance=0.02).comparisons} == {"equal"}
    assert {c.verdict for c in held(before, before, minimum=0.99).comparisons} == {"regressed"}
    better = held(night({"a": 1.0}, 0), before)
    assert [c.task for c in better.having("improved")] == ["a"]
    noisy = held(night({}, 7), before, tolerance=0.001)
    assert noisy.having("no evidence") and all(c.detectable > 0.001 for c in noisy.comparisons)
    worse = night({"c": 0.5}, 5)
    assert not held(worse, before, tolerance=0.9).having("regressed")
    assert not held(worse, before, tasks={"c": {"tolerance": 0.9}}).having("regressed")
    own = {"sum": {"tolerance": 0.9, "tasks": {"c": {"tolerance": 0.0}}}}
    assert [c.task for c in held(worse, before, arms=own).having("regressed")] == ["c"]


def test_fewer_bits_per_byte_are_an_improvement() -> None:
    """Also that means over controls exclude them, and that a history of the task has four decimals."""
    before, now = (
        night({"a": 5, "b": 5 + 3 * late, "c": 5, "d": 5 - 3 * late}, late, 1 + late, BITS) for late in (0, 1)
    )
    found = held(now, before, tasks={"a": {"maximum": 4}, "c": {"maximum": 6}})
    words = {c.task: c.verdict for c in found.comparisons}
    assert words == {"a": "regressed", "b": "regressed", "c": "no evidence", "d": "improved"}
    assert "above the maximum 4.0000" in comparison_markdown(found)
    assert make_history([before, now], "d", []).units.digits == 4
    with pytest.raises(ValueError, match="no run has target for any of sum"):
        make_history([before, now], "target", [])


@pytest.mark.parametrize(
    ("metric", "regress", "message"),
    [
        (BITS, {"minimum": 6}, "regress.minimum: every task that it is for is in bits per byte"),
        (BITS, {"tasks": {"c": {"minimum": 6}}}, "regress.tasks.c.minimum: c is in bits per byte"),
        (BITS, {"arms": {"sum": {"tasks": {"a": {"minimum": 6}}}}}, "regress.arms.sum.tasks.a.minimum: a is in bits"),
        ("accuracy", {"arms": {"sum": {"maximum": 1}}}, "regress.arms.sum.maximum: is for tasks in bits per byte, got"),
    ],
)
def test_a_bound_that_no_task_can_use_is_refused(metric: str, regress: dict[str, object], message: str) -> None:
    run = night({}, 0, metric=metric)
    with pytest.raises(ValueError, match=message):
        held(run, run, **regress)


def test_a_minimum_of_all_tasks_is_for_those_that_are_not_in_bits_per_byte() -> None:
    run = night({}, 0)
    run = replace(run, rows=(replace(run.rows[0], metric=BITS), *run.rows[1:]))
    found = held(run, run, minimum=2.0)
    assert [(c.task, c.verdict) for c in found.comparisons if c.verdict != "regressed"] == [("a", "equal")]


def test_a_baseline_keeps_every_outcome(tmp_path: Path) -> None:
    for metric in ("accuracy", "reward"):
        before = night({}, 3, metric=metric)
        write_baseline(before, tmp_path / "b.parquet")
        after = read_baseline(tmp_path / "b.parquet")
        assert after.about == before.about
        for row, kept in zip(before.rows, after.rows, strict=True):
            assert np.array_equal(kept.outcomes_N, row.outcomes_N.astype(np.float32)) and kept.recipe == row.recipe


def test_means_over_completions_do_not_differ_from_their_own_baseline(tmp_path: Path) -> None:
    """float32 rounds one third and two thirds up, so all differences would have one sign."""
    run, drawn = night({}, 0), np.random.default_rng(0).integers(0, 2, (len(TASKS), 3 * N))
    rows = [replace(row, outcomes_N=baseline_samples(d, 3)) for row, d in zip(run.rows, drawn, strict=True)]
    run = replace(run, rows=tuple(rows))
    write_baseline(run, tmp_path / "b.parquet")
    found = held(run, read_baseline(tmp_path / "b.parquet"), tolerance=0)
    assert {(c.verdict, c.p, c.test) for c in found.comparisons} == {("equal", 1.0, "sign flip")}


def test_a_changed_bit_of_a_baseline_is_found(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    write_baseline(night({}, 3), path)
    data, rng, silent = path.read_bytes(), np.random.default_rng(0), []
    good = read_baseline(path)
    for bit in rng.choice(8 * len(data), 400, replace=False):
        path.write_bytes(bytes(b ^ (1 << bit % 8) if i == bit // 8 else b for i, b in enumerate(data)))
        try:
            found = read_baseline(path)
        except ValueError:
            continue
        same = [np.array_equal(a.outcomes_N, b.outcomes_N) for a, b in zip(found.rows, good.rows, strict=True)]
        silent += [bit] * (found.about != good.about or not all(same))
    assert not silent


@pytest.mark.parametrize("group", range(20))
def test_a_threshold_exactly_reached_is_not_missed(group: int) -> None:
    """Means over seven experts, whose sums have floating-point noise."""
    rng = np.random.default_rng(group)
    before, now = night({}, 0), night({}, 0)
    rows = {"before": [], "now": []}  # type: dict[str, list[Row]]
    right = rng.permutation(7 * N) < 7 * N * 4 // 5
    lost = rng.permutation(np.flatnonzero(right))[: 7 * N // 50]
    for name, taken in (("before", right), ("now", np.where(np.isin(np.arange(7 * N), lost), False, right))):
        for i, outcomes_N in enumerate(taken.reshape(7, N)):
            row = replace(before.rows[0], group=str(i), recipe_id=name, outcomes_N=outcomes_N.astype(np.float64))
            rows[name].append(row)
    now, before = replace(now, rows=tuple(rows["now"])), replace(before, rows=tuple(rows["before"]))
    (found,) = held(now, before, tolerance=0.02, minimum=0.78, level=0.2).comparisons
    assert found.verdict == "no evidence" and not found.out_of_bounds, (found.now, found.difference)


def test_a_change_of_device_is_reported_among_others() -> None:
    before = night({}, 0)
    before = replace(before, about={**before.about, "versions": {"numpy": "1", "ray": "2"}})
    now = replace(before, about={**before.about, "numerics": "cuda", "versions": {"numpy": "2", "pillow": "13"}})
    assert held(now, before).changes == ["numpy 1 → 2", "numerics  → cuda"], "other packages are in one record only"


def test_a_task_named_control_is_not_the_mean_of_controls() -> None:
    run = night({}, 0)
    rows = [replace(run.rows[0], task="control"), replace(run.rows[1], role="control", task="b")]
    assert make_history([replace(run, rows=tuple(rows))], "control", []).lines["sum"][0] == mean_interval(
        [TaskOutcomes("b", rows[1].outcomes_N)]
    )


def test_another_choice_is_reported_and_everything_is_escaped() -> None:
    before = night({}, 0)
    rows = tuple(replace(row, arm="<s>|&\x01", recipe='["other"]') for row in before.rows)
    found = held(
        replace(before, rows=rows), replace(before, rows=tuple(replace(r, arm="<s>|&\x01") for r in before.rows))
    )
    text = comparison_markdown(found)
    assert "another choice" in text and "<s>" not in text and "\\|&amp;" in text
    assert "&lt;s&gt;|&amp;\ufffd" in junit_report(found)


def test_history_is_in_order_of_start_and_leaves_gaps() -> None:
    lacking = night({}, 2, day=2)
    lacking = replace(lacking, rows=tuple(replace(row, arm="other") for row in lacking.rows))
    found = make_history([night({}, 3, day=3), lacking, night({}, 1, day=1)], "target", ["sum"])
    assert [run.place for run in found.runs] == ["night 1", "night 2", "night 3"]
    assert [point is not None for point in found.lines["sum"]] == [True, False, True]
    assert sparkline([0.1, None, 0.3, 0.2]) == "▁–█▅" and sparkline([1.0, 1.0]) == "▄▄"
    with pytest.raises(ValueError, match="--metric: must be target"):
        make_history([lacking], "targets", [])


def test_the_page_lists_what_changed_and_folds_a_long_list(tmp_path: Path) -> None:
    versions = {f"package{i}": "1" for i in range(9)}
    before, later = night({}, 0, day=1), night({}, 0, day=2)
    before = replace(before, about={**before.about, "versions": versions})
    later = replace(later, about={**later.about, "versions": dict.fromkeys(versions, "2"), "numerics": "<cuda>"})
    html, markdown = (
        path.read_text() for path in write_history(make_history([before, later], "target", []), tmp_path / "h.html")
    )
    listed = html.split('id="changes"')[1].split("</section>")[0]
    assert listed.count("<li>") == 10 and "<summary>6 more</summary>" in listed
    assert "package8 1 → 2" in listed.split("<details")[1] and "&lt;cuda&gt;" in listed
    assert (
        "night 0: package0 1 → 2; package1" in markdown
        and "changed since" not in html.split('id="runs"')[1].split("</section>")[0]
    )
