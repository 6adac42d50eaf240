"""Proves that the KL of `lines ppo` is against the SFT model, sets its coefficient, and can end a training."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_ppo import policy, result, table, train

from pipeline.train.ppo.kl import limit, next_coef
from pipeline.train.ppo.spec import Kl

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("little_garbage")]


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
