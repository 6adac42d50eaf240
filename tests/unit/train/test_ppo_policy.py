"""Proves what the policies of `lines ppo` do, step by step: what learns, from what, and what is written.

No test expects a policy to improve: a tiny random Llama has nothing to improve.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small_ppo import policy, read_ppo, result, stages, stopping, table, train
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from pipeline.train.policy_log import TRAINING
from pipeline.train.ppo.data import load_data
from pipeline.train.ppo.models import with_factors
from pipeline.train.ppo.policy import train_policy
from pipeline.train.ppo.spec import Lora
from tasks.language.models import load_tokenizer

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("little_garbage")]


def test_ppo_makes_each_step_of_the_optimiser_and_learns_factors_alone(
    ground: Path, after_sft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = list[int]()
    real = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a: (steps.append(len(_params(self))), real(self))[1])
    training = {"updates": 3, "batch_size": 8, "lr": 1e-3, "mini_batches": 2, "epochs": 3, "micro_batch_size": 2}
    job = policy(tmp_path, ground, after_sft, training=training)
    before = (job.sft / "model.safetensors").read_bytes()
    train(job)
    assert len(steps) == 3 * 2 * 3  # updates x mini-batches x epochs, at whatever size of micro-batches
    assert [row["episodes"] for row in table(job)] == [8, 16, 24]
    factors = load_file(job.folder / "adapter_model.safetensors")
    assert factors and all(".lora_A." in name or ".lora_B." in name for name in factors)
    assert all(bool(t.any()) for t in factors.values())  # B was zero
    assert (job.sft / "model.safetensors").read_bytes() == before


def _params(optimiser: torch.optim.Optimizer) -> list[Any]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def test_micro_batches_change_nothing_but_memory(ground: Path, after_sft: Path, tmp_path: Path) -> None:
    found = []
    for micro in (None, 2):
        (tmp_path / str(micro)).mkdir()
        training = {"updates": 1, "batch_size": 8, "lr": 1e-3, "epochs": 1, "micro_batch_size": micro}
        job = policy(tmp_path / str(micro), ground, after_sft, training=training)
        train(job)
        found.append(load_file(job.folder / "adapter_model.safetensors"))
    one, other = found
    for name in one:  # losses are means over a micro-batch's tokens, which differ a little in number
        assert torch.nn.functional.cosine_similarity(one[name].flatten(), other[name].flatten(), dim=0) > 0.9


def test_the_table_of_a_training_has_what_the_reward_gave(ground: Path, after_sft: Path, tmp_path: Path) -> None:
    job = policy(tmp_path, ground, after_sft)
    train(job)
    assert pq.read_schema(job.folder / "training.parquet").equals(TRAINING)
    found = table(job)
    assert [row["step"] for row in found] == [1, 2, 3, 4]
    assert abs(found[0]["kl"]) < 1e-3  # the policy is the SFT model still
    assert all(0 <= row["eos"] <= 1 and 1 <= row["length"] <= 6 and row["kl_coef"] == 0.05 for row in found)
    summary = result(job)
    after = pq.read_table(job.folder / "completions.parquet")["reward"].to_pylist()
    assert summary["val"]["reward_mean"] == pytest.approx(np.mean(after)) and summary["val"]["n"] == 6
    assert (summary["algorithm"], summary["reward"], summary["stopped"], summary["kl_limit"]) == (
        "ppo",
        "near",
        "",
        25.0,
    )
    assert summary["sampled"] == "sampled at temperature 1" and summary["updates"] == 4


def test_the_adapter_is_one_of_the_sft_model(ground: Path, after_sft: Path, tmp_path: Path) -> None:
    """Loaded by peft onto its base, it gives the policy's last completions."""
    from pipeline.train.ppo.sampling import complete

    job = policy(tmp_path, ground, after_sft)
    train(job)
    config = json.loads((job.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(job.sft) and config["target_modules"] == sorted(
        config["target_modules"]
    )
    tokenizer = load_tokenizer(str(job.sft))
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(job.sft), job.folder)
    val = load_data(job.spec, tokenizer, loaded.config).val
    written = pq.read_table(job.folder / "completions.parquet")["completion"].to_pylist()
    assert complete(loaded, tokenizer, val, 6) == written


def test_factors_of_a_gpt2_model_record_that_its_weights_are_transposed() -> None:
    config = GPT2Config(
        vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    wrapped = with_factors(GPT2LMHeadModel(config), Lora(r=2), Path("sft"), 0)
    found = wrapped.peft_config["default"]
    ends = {name.rpartition(".")[2] for name in found.target_modules}
    assert found.fan_in_fan_out and ends == {"c_attn", "c_proj", "c_fc"}
    assert found.base_model_name_or_path == "sft"


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_dropout_does_not_change_what_a_policy_learns(
    ground: Path, after_sft: Path, tmp_path: Path, algorithm: str
) -> None:
    found = []
    for dropout in (0.0, 0.5):
        folder = tmp_path / str(dropout)
        folder.mkdir()
        lora, training = {"r": 4, "alpha": 8, "dropout": dropout}, {"updates": 1, "batch_size": 8, "lr": 1e-3}
        job = policy(folder, ground, after_sft, algorithm=algorithm, lora=lora, training=training)
        train(job)
        found.append((job.folder / "adapter_model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_a_critic_like_the_policy_learns_by_factors(ground: Path, after_sft: Path, tmp_path: Path) -> None:
    training = {"updates": 3, "batch_size": 8, "lr": 1e-3, "critic": "policy"}
    job = policy(tmp_path, ground, after_sft, training=training)
    with pytest.raises(KeyboardInterrupt):
        train_policy(job, stopping(3))
    kept = load_file(job.folder / "checkpoint.safetensors")
    critic, score = {name for name in kept if name.startswith("weights.critic.")}, "weights.critic.score.weight"
    assert critic and all(".lora_" in name or name == score for name in critic)
    assert bool(kept[score].any())  # it was 0 at first


@pytest.mark.parametrize("critic", ["small", "policy"])
def test_ppo_works_in_bfloat16_and_learns_in_float32(
    ground: Path, after_sft: Path, tmp_path: Path, critic: str
) -> None:
    training = {"updates": 3, "batch_size": 8, "lr": 1e-3, "critic": critic}
    job = policy(tmp_path, ground, after_sft, training=training, precision="bfloat16")
    with pytest.raises(KeyboardInterrupt):
        train_policy(job, stopping(3))
    kept = load_file(job.folder / "checkpoint.safetensors")
    assert {t.dtype for name, t in kept.items()} == {torch.float32}
    assert all(bool(t.any()) for name, t in kept.items() if ".lora_B." in name and name.startswith("weights.policy."))
    assert bool(kept["weights.critic.score.weight"].any())


def test_a_policy_that_did_not_move_is_refused(ground: Path, after_sft: Path, tmp_path: Path) -> None:
    job = policy(tmp_path, ground, after_sft, training={"updates": 1, "batch_size": 8, "lr": 1e-45})
    with pytest.raises(ValueError, match="policies/near: did not move from the SFT model in 1 updates"):
        train(job)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "reward 'rewards.broken': 4 of 4 scores are not finite"),
        ("failing", "failing: failed: KeyError: 'colour'"),
        ("short", "reward 'rewards.short': must give one score a completion, got scores of shape"),
        ("missing", "rewards.missing: .*own.py: has no function 'missing'"),
    ],
)
def test_a_broken_reward_is_an_error_before_anything_is_trained(
    ground: Path, tmp_path: Path, name: str, message: str
) -> None:
    rewards = {name: {"source": f"{ground / 'own.py'}:{name}"}}
    with pytest.raises(ValueError, match=message):
        stages(read_ppo(tmp_path, ground, rewards=rewards), tmp_path / "out")
