"""Proves that the report names the choices of validation in full, and the merge that a difference refers to."""

from pathlib import Path

import pytest
from exhibit_run import ARMS, write_run
from toy_run import RunBuilder

from pipeline.recipe import Recipe
from pipeline.report.data.arms import PALETTE, ArmResult, distinct, read_arms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import CandidateRow, Run
from pipeline.report.figures.bars import bar
from pipeline.report.page import build
from pipeline.report.tables.chosen import chosen_table, ingredients
from pipeline.report.tables.results import main_tables, split_params
from pipeline.report.tables.table import Table, Units
from pipeline.watch.mirrors.snapshot import read_snapshot
from search.intervals import Interval


def cells(table: Table, name: str) -> dict[str, str]:
    row = next(row for row in table.rows if row[0].text == name)
    return dict(zip(table.columns, (entry.plain for entry in row), strict=True))


def merges(folder: Path, *soups: str) -> Measure:
    """A LiNeS merge of the last method, and the plain arms that are named."""
    built = RunBuilder()
    for arm, method, weights in (("greedy", "average", (1, 1, 0, 0)), ("uniform", "average", ())):
        if arm in soups:
            built.add_group((arm, "merge", "", ""), "", [({}, Recipe.make(method, "constant", 1, 0, weights))])
    lines = Recipe.make(soups[-1], "linear", 0.2, 0.3, (1, 1, 0, 0) if soups[-1] == "average" else ())
    built.add_group(("lines", "merge", "", ""), "", [({}, lines)])
    constant = Recipe.make(soups[-1], "equal_norm:linear", 0.35, 0.3, lines.weights)
    built.add_group(("control", "merge", "lines", "equal_norm"), "", [({}, constant)])
    return Measure.read(built.write(folder))


def test_without_a_plain_merge_of_its_method_there_is_no_difference(tmp_path: Path) -> None:
    (table,) = main_tables(merges(tmp_path, "greedy", "uniform", "sum"), "test")
    assert table.columns == ("model", "mean accuracy", "normalised")


@pytest.mark.parametrize("soups", [("greedy", "uniform", "average"), ("greedy", "average")])
def test_the_plain_merge_is_of_the_same_experts_and_named(tmp_path: Path, soups: tuple[str, ...]) -> None:
    (table,) = main_tables(merges(tmp_path, *soups), "test")
    assert [cells(table, name)["plain merge"] for name in ("lines", "control", "greedy")] == ["greedy", "greedy", "–"]


def test_a_constant_of_equal_norm_is_called_so(tmp_path: Path) -> None:
    chosen = chosen_table(merges(tmp_path, "greedy", "average"))
    control = cells(chosen, "control")
    assert (control["alpha"], control["beta"]) == ("0.35 (equal norm)", "–")
    assert control["method"] == "average (2 of 4 experts: digits, fashion)"
    assert "scale" not in chosen.columns


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ((), ""),
        ((1, 1, 1), ""),
        ((1, 0, 1), "2 of 3 experts: a, c"),
        ((0, 1, 0), "1 of 3 experts: b"),
        ((1, 0.5, 0.25), "a, 0.5 × b, 0.25 × c"),
    ],
)
def test_ingredients_are_named(weights: tuple[float, ...], words: str) -> None:
    assert ingredients(weights, ["a", "b", "c"]) == words


def test_parameters_belong_to_the_method_or_to_the_scaling() -> None:
    recipe = Recipe.make("ties", "reversed:power", 0.1, 0.2, (), {"keep": 20, "p": 3})
    assert split_params(recipe) == ([("keep", 20)], [("p", 3)])


def test_a_searched_scale_and_every_use_of_test_are_reported(tmp_path: Path) -> None:
    """WiSE-FT: `scale` is searched, and every candidate is scored on test."""
    folder = write_run(tmp_path / "run", arms={"wise": ARMS["wise"]}, controls=[], exhibits={})
    row = cells(chosen_table(Measure.read(folder)), "wise")
    assert float(row["scale"]) == float(row["alpha"])
    without = write_run(tmp_path / "other", arms={"wise": ARMS["LiNeS"]}, exhibits={})
    for path, word in (
        (folder, "nothing to compare"),
        (without, "Test split, used once, to score what validation chose."),
    ):
        assert word in build(path)[1].read_text(encoding="utf-8")
    step = {"step": "norm_match", "params": {"by": "whole"}}
    chain = {"merge": {"method": "ties", "then": [step, "norm_match"]}}
    both = write_run(
        tmp_path / "both", arms={"wise": ARMS["wise"], "LiNeS": ARMS["LiNeS"], "chain": chain}, exhibits={}
    )
    found = cells(chosen_table(Measure.read(both)), "chain")
    assert found["method"] == "ties (then norm_match:by=whole; then norm_match)"
    mirrored = {row.arm: row.params.get("then") for row in read_snapshot(both).rows}
    assert mirrored["chain"] == "norm_match:by=whole, norm_match" and mirrored["LiNeS"] is None
    text = build(both)[1].read_text(encoding="utf-8")
    assert "(arms with \\`test: every\\` had each candidate scored on it: wise)" in text


def test_arms_shown_together_have_colours_of_their_own(finished_run: Path) -> None:
    arms = list(Measure.read(finished_run).arms)
    shown = distinct([arm for arm in arms if arm.role in ("lines", "plain")])
    assert len({arm.colour for arm in arms if arm.role in ("lines", "plain")}) == 2  # the same for edits and merges
    assert len({arm.colour for arm in shown}) == len(shown) == 4


def test_a_verdict_of_a_large_run_repeats_no_colour() -> None:
    """Four LiNeS merges with four controls and a plain arm each: 24 arms, nine colours."""
    built = RunBuilder()
    for method in ("sum", "ties", "dare", "average"):
        built.add_group((method, "merge", "", ""), "", [({}, Recipe.make(method))])
    for method in ("sum", "ties", "dare", "average"):
        for control in ("", "uniform", "constant", "reversed", "equal_norm"):
            arm = (f"{method} lines {control}", "merge", control and f"{method} lines ", control)
            built.add_group(arm, "", [({}, Recipe.make(method, "linear", 0.1, 0.2))])
    candidates = tuple(CandidateRow.from_row(row) for row in built.candidates)
    arms = read_arms(Run(Path(), {}, candidates, {}, {}))
    for method in ("sum", "ties", "dare", "average"):
        own = [arm for arm in arms if arm.name.startswith(method)]
        assert len(own) == 6 and len({arm.colour for arm in own}) == 6
    assert {arm.colour for arm in arms} == set(PALETTE)
    assert len({arm.look for arm in arms}) == len({(arm.colour, _pattern(arm)) for arm in arms}) == len(arms) == 24
    assert distinct(arms) == arms and len({arm.look for arm in distinct([arms[0]] * 12)}) == 12


def _pattern(arm: ArmResult) -> str:
    return str(bar(arm, {"task": Interval(0.5, 0.4, 0.6, 9)}, Units(True)).marker.pattern.shape)
