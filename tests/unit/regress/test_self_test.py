"""Proves that the self-test of the gate simulates the gate: the same decisions, rates of alarms and power."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exhibit_run import write_run
from nights import BITS, held, night
from scipy.stats import norm
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.regress.pairs import Allowed
from pipeline.regress.self_test import SelfTest, _holm_levels, self_test
from pipeline.regress.self_test_text import self_test_markdown
from pipeline.regress.snapshot import Snapshot
from pipeline.spec.thresholds import Regress
from search.row_tests import mcnemar_rows, sign_flip_rows
from search.significance import holm, mcnemar, sign_flip


def simulated(run: Snapshot, baseline: Snapshot | None = None, **regress: object) -> SelfTest:
    return self_test(run, baseline, Regress.model_validate(regress), Allowed(), resamples=400)


@pytest.mark.parametrize("experts", [1, 7, 0])
def test_row_wise_p_values_are_those_of_the_tests(experts: int) -> None:
    """One expert: outcomes 0 and 1; seven: means of them; none: normal rewards."""
    rng = np.random.default_rng(experts)
    for shift in (0.0, 0.1, 0.2, 0.3):
        noise = (rng.random((max(1, experts), 100)) < 0.2 + shift).mean(axis=0) - (rng.random(100) < 0.2)
        difference_N = noise if experts else rng.normal(shift, 1, 100)
        if experts == 1:
            won, lost = difference_N > 0, difference_N < 0
            assert mcnemar_rows([won.sum()], [lost.sum()])[0] == mcnemar(won, lost)
        else:
            p = sign_flip_rows(difference_N[None])[0]
            assert p == pytest.approx(sign_flip(difference_N, np.zeros(100)), rel=0.15, abs=0.001)
    assert sign_flip_rows(np.zeros((1, 5)))[0] == 1


def test_levels_decide_as_holm_does() -> None:
    p_RC = np.random.default_rng(0).random((200, 5)) ** 3
    for p_C, level_C in zip(p_RC, _holm_levels(p_RC, 0.1), strict=True):
        assert [p <= level for p, level in zip(p_C, level_C, strict=True)] == [p <= 0.1 for p in holm(list(p_C))]


def test_unchanged_models_raise_no_more_alarms_than_the_level() -> None:
    """The tolerance is 0, so that only the tests decide; equal runs raise none; a minimum above the mean, always."""
    before = night({}, 0)
    for test in (simulated(before, tolerance=0), simulated(night({}, 1), before, tolerance=0)):
        assert 0 < test.alarms.value < 0.05 and test.alarms.low < test.alarms.value < test.alarms.high
    assert simulated(before, before).alarms.value == 0
    assert simulated(before, before, minimum=0.95).alarms.value == 1


def test_the_power_on_accuracies_is_that_of_the_gate() -> None:
    """30 pairs of nights, of which one lost 5 points on one task of four."""
    settings = {"level": 0.2, "tolerance": 0.005}
    pairs = [(night({"c": 0.75}, 100 + i), night({}, i)) for i in range(30)]
    lost = sum("c" in [c.task for c in held(*pair, **settings).having("regressed")] for pair in pairs) / len(pairs)
    powers = found(pairs[0][1], settings)
    assert powers == sorted(powers) and powers[-1] == pytest.approx(lost, abs=0.25)


@pytest.mark.parametrize("metric", [BITS, "reward"])
def test_the_power_on_other_metrics_is_that_of_normal_differences(metric: str) -> None:
    """A fifth of a standard deviation is two standard errors of the difference; the first step of Holm is at 0.05."""
    powers = found(night({}, 0, metric=metric), {"level": 0.2, "tolerance": 0.0})
    assert powers == sorted(powers) and powers[2] == pytest.approx(norm.cdf(2 - norm.ppf(0.975)), abs=0.08)
    assert powers[-1] > 0.99


def found(run: Snapshot, settings: dict[str, float]) -> list[float]:
    (comparison,) = (c for c in simulated(run, **settings).comparisons if c.task == "c")
    return [rate.value for rate in comparison.found if rate is not None]


def test_a_drop_beyond_the_mean_is_not_planted() -> None:
    poor = night(dict.fromkeys("abcd", 0.02), 3)
    assert [c.found[-1] for c in simulated(poor, poor).comparisons] == [None] * 4
    mixed = replace(poor, rows=(replace(poor.rows[0], metric="reward"), *poor.rows[1:]))
    page = self_test_markdown(simulated(mixed, night({}, 1)))
    assert "finds 5 points or 0.5 SD" in page and "a drop of 1 point or 0.1 SD in one of 4 comparisons" in page


def test_the_command_prints_the_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.regress.self_test.RESAMPLES", 50)
    run = str(write_run(tmp_path / "run", exhibits={}))
    shown = CliRunner().invoke(app, ["regress", run, "--self-test", "--markdown", str(tmp_path / "page.md"), "--json"])
    facts = json.loads(shown.stdout)
    assert shown.exit_code == 0 and facts["alarms"]["high"] < 0.2 and facts["resamples"] == 50
    assert (tmp_path / "page.md").read_text().startswith("# Self-test of the gate of toy")
    for words, message in (([], "or use --self-test"), (["--self-test", "--junit", "a.xml"], "no test cases")):
        refused = CliRunner().invoke(app, ["regress", run, *words])
        assert refused.exit_code == 2 and message in refused.stderr
