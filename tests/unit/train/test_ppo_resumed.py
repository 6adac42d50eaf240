"""Proves that a stopped policy of `lines ppo` resumes exactly, and that a folder of another training is refused."""

from pathlib import Path

import pytest
from small_ppo import ignore, policy, stop, stopping, table, train

from pipeline.train.model_folder import condition
from pipeline.train.ppo import policy as learning
from pipeline.train.ppo.policy import train_policy

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("little_garbage")]


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
