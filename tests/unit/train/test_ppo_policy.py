"""Proves what the policies of `lines ppo` do, step by step: what learns, from what, and that resuming is exact.

No test expects a policy to improve: a tiny random Llama has nothing to improve.
"""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small_ppo import ignore, policy, read_ppo, result, stages, stop, stopping, table, train
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from pipeline.train.model_folder import condition
from pipeline.train.policy_log import TRAINING
from pipeline.train.ppo import policy as learning
from pipeline.train.ppo.data import load_data
from pipeline.train.ppo.kl import limit, next_coef
from pipeline.train.ppo.models import with_factors
from pipeline.train.ppo.policy import train_policy
from pipeline.train.ppo.spec import Kl, Lora
from tasks.language.models import load_tokenizer

pytestmark = pytest.mark.training


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> Iterator[None]:
    """PPOTrainer collects garbage after every update; frozen objects of libraries are skipped, which saves time."""
    gc.freeze()
    yield
    gc.unfreeze()


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


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_a_policy_that_was_stopped_ends_with_the_bits_of_an_undisturbed_one(
    ground: Path, after_sft: Path, tmp_path: Path, algorithm: str
) -> None:
    outs = []
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        kl = {"coef": 0.1, "target": 1.0}
        job = policy(tmp_path / name, ground, after_sft, algorithm=algorithm, kl=kl, reward_centring="reference")
        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                train_policy(job, stopping(3))
            assert condition(job.folder, job.identity) == "started"
        states = train(job)
        assert states[-1].step == states[-1].total == 4
        outs.append(job)
    whole, stopped = outs
    for file in ("adapter_model.safetensors", "completions.parquet"):
        assert (whole.folder / file).read_bytes() == (stopped.folder / file).read_bytes()
    one, other = ([{k: v for k, v in row.items() if k != "seconds"} for row in table(job)] for job in outs)
    assert one == other and len(one) == 4


def test_a_policy_that_was_stopped_at_its_end_writes_what_it_learned(
    ground: Path, after_sft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last checkpoint no update is left; adapter and completions are written from it."""
    found = []
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        job = policy(tmp_path / name, ground, after_sft)
        if name == "stopped":
            with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(learning, "complete", stop)
                train_policy(job, ignore)
            assert job.condition() == "started"
        train(job)
        files = ("adapter_model.safetensors", "completions.parquet")
        found.append([(job.folder / file).read_bytes() for file in files])
    assert found[0] == found[1]


def test_the_table_of_a_training_is_never_behind_its_checkpoint(
    ground: Path, after_sft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a stop between the two, after the last update, would leave an old table."""
    job, real = policy(tmp_path, ground, after_sft, checkpoint_every=4), learning.save_state
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(learning, "save_state", lambda *a: stop(real(*a)))
        train_policy(job, ignore)
    assert job.condition() == "started" and len(table(job)) == 4


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


def test_the_coefficient_follows_the_kl() -> None:
    assert next_coef(0.5, 100.0, None) == 0.5
    assert next_coef(0.5, 100.0, 6.0) == pytest.approx(0.5 * 1.02)  # clipped at 0.2, of which a tenth
    assert next_coef(0.5, -5.0, 6.0) == pytest.approx(0.5 * 0.98)
    assert next_coef(0.5, 6.6, 6.0) == pytest.approx(0.5 * 1.01)
    assert [limit(Kl(stop=20)), limit(Kl(target=6)), limit(Kl())] == [40, 12, 25]


def test_with_a_target_every_update_has_the_coefficient_that_the_last_one_gave(
    ground: Path, after_sft: Path, tmp_path: Path
) -> None:
    job = policy(tmp_path, ground, after_sft, kl={"coef": 0.2, "target": 0.01})
    train(job)
    found = table(job)
    assert found[0]["kl_coef"] == 0.2 and len({row["kl_coef"] for row in found}) == 4
    for before, after in zip(found, found[1:], strict=False):
        assert after["kl_coef"] == next_coef(before["kl_coef"], before["kl"], 0.01)


def test_the_coefficient_that_is_noted_is_the_one_that_trl_uses(
    ground: Path, after_sft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A huge target makes every update lower it by 2 %; the trainer's own penalty is the coefficient times the KL."""
    from transformers import Trainer

    logged = list[dict[str, float]]()
    real = Trainer.log
    monkeypatch.setattr(Trainer, "log", lambda self, logs, *a: (logged.append(dict(logs)), real(self, logs, *a))[1])
    training = {"updates": 4, "batch_size": 8, "lr": 1e-2}
    job = policy(tmp_path, ground, after_sft, kl={"coef": 0.2, "target": 1e6}, training=training)
    train(job)
    coefs = [-row["objective/non_score_reward"] / row["objective/kl"] for row in logged[1:] if "objective/kl" in row]
    assert coefs == pytest.approx([0.2 * 0.98, 0.2 * 0.98**2, 0.2 * 0.98**3], rel=1e-3)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_a_kl_above_its_stop_ends_training_and_is_recorded(
    ground: Path, after_sft: Path, tmp_path: Path, algorithm: str
) -> None:
    training = {"updates": 40, "batch_size": 8, "lr": 3e-2}
    job = policy(tmp_path, ground, after_sft, algorithm=algorithm, kl={"stop": 0.5}, training=training)
    states, found, summary = train(job), table(job), result(job)
    assert 1 < len(found) < 40 and found[-1]["kl"] > 0.5 and all(row["kl"] <= 0.5 for row in found[:-1])
    assert summary["stopped"] == f"kl {found[-1]['kl']:.1f} above kl.stop 0.5 after update {len(found)}"
    assert summary["updates"] == len(found) and states[-1].step == states[-1].total == 40
    assert bool(summary["warnings"]) == (found[-1]["kl"] > 1.0)
    assert job.condition() == "finished"


def test_a_first_update_that_goes_too_far_is_the_last(ground: Path, after_sft: Path, tmp_path: Path) -> None:
    """GRPO takes its KL while it learns, so that the first one may be too large; the policy is still written."""
    job = policy(tmp_path, ground, after_sft, algorithm="grpo", kl={"stop": 1e-6})
    states, summary = train(job), result(job)
    assert len(table(job)) == summary["updates"] == 1 and states[-1].step == 4
    assert summary["stopped"].endswith("above kl.stop 1e-06 after update 1")
    assert any(bool(t.any()) for t in load_file(job.folder / "adapter_model.safetensors").values())


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_the_kl_is_against_the_sft_model_in_every_segment(
    ground: Path, after_sft: Path, tmp_path: Path, algorithm: str
) -> None:
    """Against the policy at the start of its segment, which is one update here, it would be 0."""
    training = {"updates": 3, "batch_size": 8, "lr": 1e-2, "epochs": 1, "mini_batches": 1}
    job = policy(tmp_path, ground, after_sft, algorithm=algorithm, checkpoint_every=1, training=training)
    train(job)
    first, *others = (row["kl"] for row in table(job))
    assert abs(first) < 1e-4 and all(abs(kl) > 1e-3 for kl in others)


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


def test_another_sft_model_than_prepared_is_refused(ground: Path, after_sft: Path, tmp_path: Path) -> None:
    job = policy(tmp_path, ground, after_sft)
    config = job.sft / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ValueError, match="policies/near: this machine has another sft than the one that"):
        train(job)


def test_a_folder_that_holds_another_run_is_refused(ground: Path, after_sft: Path, tmp_path: Path) -> None:
    train(policy(tmp_path, ground, after_sft))
    other = policy(tmp_path, ground, after_sft, kl={"coef": 0.1})
    with pytest.raises(ValueError, match=r"holds a model that was trained differently: kl.coef 0.05, not 0.1"):
        other.condition()


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


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_reward_that_fails_while_a_policy_learns_keeps_the_last_checkpoint(
    ground: Path, after_sft: Path, tmp_path: Path, algorithm: str
) -> None:
    """Finite for the SFT model and the first segment, then NaN; once fixed, the training resumes."""
    own = tmp_path / "own.py"
    own.write_text(MOODY)
    rewards = {"moody": {"source": f"{own}:moody"}}
    job = policy(tmp_path, ground, after_sft, "moody", rewards=rewards, algorithm=algorithm, checkpoint_every=1)
    (tmp_path / "bad").touch()
    with pytest.raises(ValueError, match=r"reward 'rewards.moody': 1 of 8 scores are not finite; the first is nan"):
        train_policy(job, ignore)
    assert job.condition() == "started" and len(table(job)) == 2
    (tmp_path / "bad").unlink()
    train(job)
    assert [row["step"] for row in table(job)] == [1, 2, 3, 4]


MOODY = '''
from pathlib import Path

_bad = Path(__file__).with_name("bad")
_calls = []


def moody(sources, completions):
    """Not finite at its third call since there is a file named bad."""
    scores = [len(text) / 10 for text in completions]
    if _bad.exists():
        _calls.append(1)
        if len(_calls) == 3:
            scores[2] = float("nan")
    return scores
'''
