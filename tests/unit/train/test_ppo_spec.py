"""Proves that the spec of `lines ppo` is read as written, and that errors name the field."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.spec.load import SpecError
from pipeline.train.ppo.spec import PpoSpec, load_ppo_spec, runs_of


def small(**changes: Any) -> dict[str, Any]:
    spec = {
        "name": "small",
        "base": "embedded/smollm2",
        "prompts": {"source": "embedded/packages", "template": "Say: {source}"},
        "max_new_tokens": 8,
        "sft": {"steps": 2, "lr": 1e-3},
        "rewards": {"short": {"source": "reward/plainness"}, "near": {"source": "reward/similarity"}},
        "training": {"updates": 2, "lr": 1e-4},
    }
    return {**spec, **changes}


def read(folder: Path, **changes: Any) -> PpoSpec:
    path = folder / "ppo.yaml"
    path.write_text(yaml.safe_dump(small(**changes), sort_keys=False))
    return load_ppo_spec(path)


def test_each_reward_has_a_policy_where_none_are_named(tmp_path: Path) -> None:
    runs = runs_of(read(tmp_path))
    assert [(r.name, r.reward, r.algorithm) for r in runs] == [("short", "short", "ppo"), ("near", "near", "ppo")]
    assert {(r.settings.batch_size, r.settings.steps, r.settings.critic) for r in runs} == {(16, 4, "small")}


def test_a_policy_overrides_training_and_algorithm_and_keeps_the_rest(tmp_path: Path) -> None:
    policies = {"mine": {"reward": "near", "algorithm": "rloo", "training": {"lr": 0.5, "batch_size": 8}}}
    (run,) = runs_of(read(tmp_path, policies=policies, algorithm="grpo"))
    assert (run.name, run.reward, run.algorithm) == ("mine", "near", "rloo")
    assert (run.settings.lr, run.settings.batch_size, run.settings.updates) == (0.5, 8, 2)


def test_paths_next_to_the_spec_become_absolute_and_names_stay(tmp_path: Path) -> None:
    for name in ("model", "prompts", "encoder"):
        (tmp_path / name).mkdir()
    (tmp_path / "own.py").touch()
    rewards = {
        "own": {"source": "own.py:f"},
        "near": {"source": "reward/similarity", "options": {"model": "encoder"}},
        "far": {"source": "reward/similarity", "options": {"model": "embedded/minilm", "batch_size": 2}},
    }
    spec = read(tmp_path, base="model", prompts={"source": "prompts"}, rewards=rewards)
    assert (spec.base, spec.prompts.source) == (str(tmp_path / "model"), str(tmp_path / "prompts"))
    assert spec.rewards["own"].source == f"{tmp_path / 'own.py'}:f"
    assert spec.rewards["near"].source == "reward/similarity"
    assert spec.rewards["near"].options == {"model": str(tmp_path / "encoder")}
    assert spec.rewards["far"].options == {"model": "embedded/minilm", "batch_size": 2}
    assert read(tmp_path).base == "embedded/smollm2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "dpo"}, "algorithm: must be 'ppo', 'rloo' or 'grpo', got 'dpo'"),
        ({"policies": {"p": {"reward": "shrt"}}}, "policies.p.reward: unknown name 'shrt'; did you mean 'short'"),
        (
            {"rewards": {"palin": {"source": "own.py:plain"}}, "policies": {"p": {"reward": "plain"}}},
            "rewards.palin: no field names it; did you mean 'plain', as in policies.p.reward?",
        ),
        ({"reward": {}}, "reward: unknown key; did you mean 'rewards'"),
        ({"training": {"updates": 2, "lr": 1e-4, "batchsize": 4}}, "training.batchsize: unknown key; did you mean"),
        ({"training": {"updates": 2}}, "policies.short.training.lr: must be given"),
        ({"training": {"lr": 1e-4}}, "policies.short.training.updates: must be given"),
        (
            {"training": {"updates": 2, "lr": 1e-4, "batch_size": 9}},
            "policies.short.training.batch_size: must be a multiple of mini_batches, 2, got 9",
        ),
        (
            {"algorithm": "rloo", "training": {"updates": 2, "lr": 1e-4, "batch_size": 6}},
            "batch_size: must be a multiple of samples_per_prompt, 4, got 6",
        ),
        (
            {"training": {"updates": 2, "lr": 1e-4, "micro_batch_size": 3}},
            "micro_batch_size: must divide a mini-batch, 8 completions, got 3",
        ),
        ({"kl": {"coef": 0}}, "kl.coef: must be greater than 0, got 0"),
        ({"prompts": {"source": "x", "template": "none"}}, "prompts.template: must hold {source} once"),
        ({"rewards": {}}, "rewards: must have at least 1 item"),
        ({"reward_centring": "batch"}, "reward_centring: must be 'sft', 'reference' or 'none', got 'batch'"),
    ],
)
def test_errors_name_the_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, **changes)
    assert message in str(caught.value)


def test_sft_must_be_given(tmp_path: Path) -> None:
    assert read(tmp_path, sft=None).sft is None
    without = {key: value for key, value in small().items() if key != "sft"}
    path = tmp_path / "ppo.yaml"
    path.write_text(yaml.safe_dump(without, sort_keys=False))
    with pytest.raises(SpecError, match="sft: is required"):
        load_ppo_spec(path)


def test_the_example_is_read() -> None:
    spec = load_ppo_spec(Path(__file__).parents[3] / "examples" / "rewarded-soups" / "ppo.yaml")
    assert [run.name for run in runs_of(spec)] == ["faithful", "plain"] and spec.kl.stop == 20
