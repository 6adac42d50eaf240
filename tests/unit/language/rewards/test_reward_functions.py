"""Proves that functions and plug-ins are rewards, known by their source, whose scores are checked."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_rewards import CPU, SAMPLES, sample

from tasks.base import NonFiniteOutput
from tasks.language.base import Prompt, Reward, Sample
from tasks.language.rewards.config import RewardConfig
from tasks.language.rewards.loading import REWARDS, checked, load_reward, reward_config, reward_fingerprint
from tasks.plugins import load_plugins

FUNCTIONS = """
LIMIT = 3
def length(prompts, completions):
    return [len(c) - len(p) for p, c in zip(prompts, completions, strict=True)]
def one(prompts, completions):
    return 1.0
def broken(prompts, completions):
    return [0.0, float("nan"), float("inf")][: len(completions)]
def fewer(prompts, completions):
    return [0.0] * (len(completions) - 1)
"""


def test_functions_of_files_and_of_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards_of_a_test.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    samples = [sample("abc", "a"), sample("", "ab")]
    for source in (f"{tmp_path}/rewards_of_a_test.py:length", "rewards_of_a_test:length"):
        reward = load_reward(source, {}, CPU)
        assert checked("length", reward, samples).tolist() == [2, -2]
        assert reward.fingerprint == reward_fingerprint(source, {})
    with pytest.raises(ValueError, match=r"one: must return a list of numbers, got 1\.0"):
        load_reward("rewards_of_a_test:one", {}, CPU).score(samples)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("mine.py:lenght", {}, r"mine\.py: has no function 'lenght'; did you mean 'length'"),
        ("mine.py:LIMIT", {}, r"mine\.py: 'LIMIT' must be a function, got 3"),
        ("mine.py:length", {"model": "x"}, r"options\.model: unknown option; known: columns"),
        ("absent.py:length", {}, r"cannot import '.*absent\.py': FileNotFoundError: no such file"),
        ("broken.py:length", {}, r"cannot import '.*broken\.py': ZeroDivisionError"),
        ("no_such_module:length", {}, r"cannot import '.*no_such_module': ModuleNotFoundError"),
    ],
)
def test_functions_that_are_none(source: str, options: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    (tmp_path / "broken.py").write_text("1 / 0")
    where = source if source.startswith("no_") else f"{tmp_path}/{source}"
    with pytest.raises(ValueError, match=message):
        load_reward(where, options, CPU)


def test_a_function_is_known_by_its_source(tmp_path: Path) -> None:
    file, copy = tmp_path / "mine.py", tmp_path / "copy.py"
    for path in (file, copy):
        path.write_text(FUNCTIONS)
    first = reward_fingerprint(f"{file}:length", {})
    assert reward_fingerprint(f"{copy}:length", {}) == first
    assert reward_fingerprint(f"{file}:one", {}) != first
    file.write_text(FUNCTIONS.replace("len(c) -", "len(c) +"))
    assert reward_fingerprint(f"{file}:length", {}) != first


@pytest.mark.parametrize(
    ("parameters", "taken"),
    [
        ("sources, completions, rows", True),
        ("prompts, texts, *, rows=None", True),
        ("prompts, rows", False),
        ("rows, completions", False),
        ("prompts, completions, **options", False),
    ],
)
def test_rows_are_taken_after_sources_and_completions(tmp_path: Path, parameters: str, taken: bool) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"def f({parameters}):\n    return [float(rows[0]['k'])]\n")
    sample = Sample(Prompt("a", "a", row={"k": 1}), "text")
    config = reward_config(f"{path}:f", {})
    assert config.reads_rows() == taken
    if taken:
        assert config.load(CPU).score([sample]) == [1.0]


def test_unknown_rewards_suggest_near_names() -> None:
    with pytest.raises(ValueError, match="unknown reward 'clasifier': did you mean 'classifier'"):
        load_reward("reward/clasifier", {}, CPU)
    with pytest.raises(
        ValueError, match=r"unknown reward 'plainness': did you mean 'reward/plainness'\?; a function is"
    ):
        load_reward("plainness", {}, CPU)


def test_scores_are_checked(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    samples = [sample("one"), sample("two"), sample("three " * 30)]

    def reward(name: str) -> Reward:
        return load_reward(f"{tmp_path}/mine.py:{name}", {}, CPU)

    message = r"reward 'r': 2 of 3 scores are not finite; the first is nan for completion 1, 'two'"
    with pytest.raises(NonFiniteOutput, match=message):
        checked("r", reward("broken"), samples)
    message = (
        r"reward 'r': must give one score a completion, got scores of shape \(2,\) for 3 .*number 2, '(three ){13}"
    )
    with pytest.raises(ValueError, match=message):
        checked("r", reward("fewer"), samples)
    empty = checked("r", reward("length"), [])
    assert empty.shape == (0,) and empty.dtype == np.float32


PLUGIN = """
from tasks.language.rewards.config import RewardConfig
from tasks.language.rewards.loading import REWARDS

class Constant(RewardConfig):
    value: float = 1.0
    def fingerprint(self):
        return f"constant {self.value}"
    def load(self, device):
        return self
    def score(self, samples):
        return [self.value] * len(samples)

REWARDS.register("constant-of-a-test", Constant)
"""


def test_a_plugin_brings_its_own_kind(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    load_plugins([str(tmp_path / "plugin.py")])
    kind: type[RewardConfig] = REWARDS["constant-of-a-test"]
    assert "value" in kind.model_fields
    assert (
        checked("c", load_reward("reward/constant-of-a-test", {"value": 2.5}, CPU), SAMPLES[:2]).tolist() == [2.5] * 2
    )
    with pytest.raises(ValueError, match=r"options\.valeu: unknown option; did you mean 'value'"):
        load_reward("reward/constant-of-a-test", {"valeu": 2}, CPU)


def test_naming_a_reward_needs_no_torch() -> None:
    code = "import sys, tasks.language.rewards.loading; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
