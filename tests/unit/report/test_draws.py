"""Proves that completions of one prompt count as one sample of every mean and difference, also outside the soups."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from soup_run import PROMPTS, SoupBuilder

from pipeline.recipe import Recipe
from pipeline.report.data.clouds import group_clouds
from pipeline.report.data.comparable import GroupTask
from pipeline.report.data.estimates import Measure
from pipeline.report.data.objective_outcomes import objective_outcomes
from search.intervals import mean_interval

PLACES = [GroupTask("", "faithful")]


def measured(folder: Path, draws: int) -> Measure:
    """The base and two merges; all completions of a prompt have the same outcome."""
    run, rng = SoupBuilder(("faithful",), draws), np.random.default_rng(5)
    recipes = (Recipe.make("zero"), *(Recipe.make("sum", alpha=alpha) for alpha in (0.25, 0.5)))
    for name, recipe in zip(("pre-trained", "merge", "merge"), recipes, strict=True):
        outcomes = {split: np.repeat(rng.normal(size=n).round(3), draws) for split, n in PROMPTS.items()}
        run.add((name, name, "", ""), "", recipe, {"faithful": outcomes})
    for score in run.scores:
        score["normalised"] = 1.0
    return Measure.read(run.write(folder))


def test_more_completions_of_the_same_prompts_make_no_interval_narrower(tmp_path: Path) -> None:
    found, spreads = [], []
    for draws in (1, 4):
        measure = measured(tmp_path / str(draws), draws)
        base, merge, _ = measure.run.candidates
        mean = measure.mean(lambda _, it=merge: it, PLACES, "test")
        difference = measure.difference(lambda _, it=merge: it, lambda _, it=base: it, PLACES, "test")
        (cloud,) = group_clouds(measure, ('task["faithful"]',), [arm for arm in measure.arms if arm.kind == "merge"])
        means_S = measure.resampled(merge, "faithful")
        (arm,) = (arm for arm in measure.arms if arm.kind == "merge")
        only = replace(arm, candidates=(merge,))
        objective = objective_outcomes(measure, only, PLACES, ['task["faithful"]'])
        assert mean and difference and means_S is not None
        found.append((mean, difference, cloud.samples, mean_interval(objective or [])))
        spreads.append(means_S[1:].std())
    assert found[0][3].value == pytest.approx(found[0][0].value)
    assert found[0] == found[1] and found[0][0].n == found[0][2] // 2 * 3 == PROMPTS["test"]
    assert spreads[1] == pytest.approx(spreads[0], rel=0.2)
