"""Proves that bad input of a run of rewards is reported before any work is lost."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import command
from small_soup import REWARDS, write_soup, write_soup_spec
from tiny_language import tiny_tokenizer, write_adapter, write_tiny_llama


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_soup(tmp_path_factory.mktemp("soup"))


@pytest.fixture
def own(tmp_path: Path, files: Path) -> Path:
    """A copy of the files, to be damaged."""
    return Path(shutil.copytree(files, tmp_path / "own"))


def other_vocabulary(own: Path) -> dict[str, Any]:
    other = write_tiny_llama(own / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["quite", "new"])
    tokenizer.save_pretrained(own / "policies" / "open")
    assert other.is_dir()
    return {}


def other_base(own: Path) -> dict[str, Any]:
    write_adapter(own / "policies" / "open", write_tiny_llama(own / "other", seed=7), seed=3)
    return {}


def no_pad_token(own: Path) -> dict[str, Any]:
    config = json.loads((own / "sft" / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (own / "sft" / "tokenizer_config.json").write_text(json.dumps(config))
    return {}


def prompts_of(own: Path, source: str) -> dict[str, Any]:
    lines = (own / "prompts" / "val.jsonl").read_text().splitlines()
    lines[2] = json.dumps({"source": source, "reference": "x"})
    (own / "prompts" / "val.jsonl").write_text("\n".join(lines) + "\n")
    return {}


def empty_prompt(own: Path) -> dict[str, Any]:
    return prompts_of(own, "  ")


def long_prompt(own: Path) -> dict[str, Any]:
    return prompts_of(own, "word " * 400)


def policy_is_the_base(own: Path) -> dict[str, Any]:
    for name, scale in (("brief", 0.05), ("open", 0.0)):
        write_adapter(own / "policies" / name, own / "sft", seed=3, scale=scale)
    return {}


def reward_of_nan(own: Path) -> dict[str, Any]:
    (own / "rewards.py").write_text(REWARDS + "\n\ndef bad(p, c):\n    return [float('nan')] * len(c)\n")
    return {"tasks": {"brief": "rewards.py:brevity", "open": "rewards.py:bad"}}


def reward_of_another_number(own: Path) -> dict[str, Any]:
    (own / "rewards.py").write_text(REWARDS + "\n\ndef bad(p, c):\n    return [0.5]\n")
    return {"tasks": {"brief": "rewards.py:brevity", "open": "rewards.py:bad"}}


def unknown_reward(own: Path) -> dict[str, Any]:
    return {"tasks": {"brief": "rewards.py:brevity", "open": "reward/similarty"}}


BAD: dict[Callable[[Path], dict[str, Any]], tuple[str, ...]] = {
    other_vocabulary: ("experts.open: ", "another vocabulary", "302 tokens instead of 300"),
    other_base: ("experts.open: ", "its adapter was trained on", "experts.brief"),
    no_pad_token: ("tokenizer of ", "has no pad token", "set one, other than the end-of-sequence token"),
    empty_prompt: ("generation.prompts: ", "val.jsonl: row 3", "empty"),
    long_prompt: ("generation.prompts: ", "val.jsonl: row 3", "tokens"),
    policy_is_the_base: ("experts.open: ", "has the weights of the base"),
    reward_of_nan: ("tasks.open: ", "nan"),
    reward_of_another_number: ("tasks.open: ", "must give one score a completion", "for 4 completions"),
    unknown_reward: ("tasks.open: ", "'similarty'", "did you mean 'similarity'?"),
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_input_is_refused_before_any_worker_starts(own: Path, spoil: Callable[[Path], dict[str, Any]]) -> None:
    status, output = command("run", write_soup_spec(own, **spoil(own)), "--out", own / "run")
    assert status == 2 and "Traceback" not in output, output
    assert [part for part in BAD[spoil] if part not in output] == [], output
    assert not (own / "run").exists()


def test_a_reward_that_fails_on_real_completions_stops_early_and_keeps_them(own: Path) -> None:
    bad = "\n\ndef bad(p, c):\n    return [float('inf') if len(set(c)) < 40 and 'for' not in c else 1.0 for c in c]\n"
    (own / "rewards.py").write_text(REWARDS + bad)
    tasks = {"brief": "rewards.py:brevity", "open": "rewards.py:bad"}
    status, output = command("run", write_soup_spec(own, tasks=tasks), "--out", own / "run")
    assert status == 2 and "tasks.open: non_finite on the base's completions" in output, output
    assert "the completions are kept" in output
    assert list((Path(os.environ["LINES_SWEEP_CACHE"]) / "completions").glob("*.jsonl"))


def test_a_constant_reward_is_refused_after_the_references(own: Path) -> None:
    (own / "rewards.py").write_text(REWARDS + "\n\ndef flat(p, c):\n    return [0.25] * len(c)\n")
    tasks = {"brief": "rewards.py:brevity", "open": "rewards.py:flat"}
    status, output = command("run", write_soup_spec(own, tasks=tasks), "--out", own / "run")
    assert status == 2 and "tasks.open: gives 0.25 to all 8 completions of the base" in output, output
