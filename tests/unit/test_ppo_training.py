"""Proves what SFT and the policies of `lines ppo` do, step by step: what learns, from what, and that resuming is exact.

None of these tests says that a policy improves: the tiny random Llama has nothing to improve on.
"""

import gc
import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small_ppo import read_ppo, write_ground
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from pipeline.policy_log import TRAINING
from pipeline.train.language.data import load_data, prompt_ids, rows
from pipeline.train.language.jobs import Job, Told
from pipeline.train.language.kl import limit, next_coef
from pipeline.train.language.measure import judge, measure, saturation
from pipeline.train.language.models import with_factors
from pipeline.train.language.policy import train_policy
from pipeline.train.language.preparation import Stages
from pipeline.train.language.rewards import Batches, Centring, Completion, RewardModule, Scorer
from pipeline.train.language.sft import example, rate, train_sft
from pipeline.train.language.spec import Kl, Lora, PpoSpec
from pipeline.train.outputs import condition
from tasks.language.base import Prompt, Sample
from tasks.language.models import load_tokenizer


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> Iterator[None]:
    """PPOTrainer collects garbage after every update, which goes through all that libraries hold but what is frozen."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def begun(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A command's folder in which everything is done but the policies."""
    out = tmp_path_factory.mktemp("begun") / "out"
    made = stages(read_ppo(ground, ground), out)
    for job in made.first():
        train_sft(job, ignore)
    for job in made.measurements():
        measure(job, ignore)
    return out


def ignore(told: Told) -> None:
    """Progress."""


def stages(spec: PpoSpec, out: Path) -> Stages:
    return Stages(spec, out, "cpu", lambda *_: None)


def policy(folder: Path, ground: Path, begun: Path, name: str = "near", **changes: Any) -> Job:
    """The job of one policy in a copy of `begun`."""
    out = folder / "out"
    if not out.exists():
        shutil.copytree(begun, out)
    spec = read_ppo(folder, ground, **changes)
    made = stages(spec, out)
    for job in made.measurements():
        if changes and job.condition() != "finished":
            measure(job, ignore)
    return next(job for job in made.policies() if job.name == f"policies/{name}")


def train(job: Job) -> list[Told]:
    told: list[Told] = []
    train_policy(job, told.append)
    return told


def table(job: Job) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(job.folder / "training.parquet").to_pylist()
    return found


def result(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.folder / "train.json").read_text())
    return found


def stopping(at: int) -> Callable[[Told], None]:
    """Ctrl-C when the step `at` is told of."""

    def tell(told: Told) -> None:
        if told.step == at:
            raise KeyboardInterrupt

    return tell


# SFT


def test_sft_learns_from_the_reference_alone(ground: Path) -> None:
    tokenizer = load_tokenizer(str(ground / "model"))
    pair = example(tokenizer, Prompt("Say: a b\nSynopsis:", "a b", "reading images"))
    before = tokenizer("Say: a b\nSynopsis:")["input_ids"]
    after = [*tokenizer(" reading images")["input_ids"], tokenizer.eos_token_id]
    assert pair == {"input_ids": before + after, "labels": [-100] * len(before) + after}


def test_the_loss_of_sft_is_that_of_the_references_and_falls(ground: Path, begun: Path) -> None:
    tokenizer, spec = load_tokenizer(str(ground / "model")), read_ppo(begun.parent, ground)
    base = AutoModelForCausalLM.from_pretrained(ground / "model")
    train_prompts = load_data(spec, tokenizer, base.config).train
    pairs = [example(tokenizer, train_prompts[i]) for i in rows(len(train_prompts), 0, 8, 0)]  # the first stretch's
    log = pq.read_table(begun / "sft" / "log.parquet").to_pylist()

    def loss(model: Any, pair: dict[str, list[int]]) -> tuple[float, int]:
        ids, labels = (torch.tensor([pair[key]]) for key in ("input_ids", "labels"))
        logits = model(input_ids=ids).logits[0, :-1]
        return float(F.cross_entropy(logits, labels[0, 1:], reduction="sum")), int((labels != -100).sum())

    with torch.no_grad():
        # The trainer shuffles a stretch: its first batch is four of these eight, and its loss one of their means.
        each = [loss(base, pair) for pair in pairs]
        means = [sum(each[i][0] for i in four) / sum(each[i][1] for i in four) for four in _fours()]
        assert min(abs(log[0]["loss"] - mean) for mean in means) < 1e-3
        sft = AutoModelForCausalLM.from_pretrained(begun / "sft")
        assert sum(loss(sft, pair)[0] for pair in pairs) < sum(total for total, _ in each)


def _fours() -> list[tuple[int, ...]]:
    from itertools import combinations

    return list(combinations(range(8), 4))


def test_sft_by_factors_is_merged_and_full_sft_moves_every_weight(ground: Path, begun: Path, tmp_path: Path) -> None:
    before, merged = (load_file(folder / "model.safetensors") for folder in (ground / "model", begun / "sft"))
    assert before.keys() == merged.keys()
    moved = {name for name in before if not torch.equal(before[name], merged[name])}
    assert moved == {name for name in before if name.endswith("_proj.weight")}
    sft = {"steps": 1, "batch_size": 4, "lr": 1e-2, "lora": None}
    (job,) = stages(read_ppo(tmp_path, ground, sft=sft), tmp_path / "out").first()
    train_sft(job, ignore)
    full = load_file(job.folder / "model.safetensors")
    assert all(not torch.equal(before[name], full[name]) for name in before)


def test_sft_that_was_stopped_ends_with_the_bits_of_an_undisturbed_one(
    ground: Path, begun: Path, tmp_path: Path
) -> None:
    (job,) = stages(read_ppo(tmp_path, ground), tmp_path / "out").first()
    with pytest.raises(KeyboardInterrupt):
        train_sft(job, stopping(3))
    assert job.condition() == "started"
    train_sft(job, ignore)
    assert (job.folder / "model.safetensors").read_bytes() == (begun / "sft" / "model.safetensors").read_bytes()
    assert load_tokenizer(str(job.folder)).pad_token == "<pad>"


def test_the_rate_rises_and_falls_in_straight_lines() -> None:
    assert [rate(step, 10, 0.2) for step in (0, 1)] == pytest.approx([1 / 3, 2 / 3])
    assert [rate(step, 10, 0.2) for step in (2, 6, 9)] == pytest.approx([1, 0.5, 0.125])
    assert rate(0, 1, 0.0) == 1


# Rewards


class Echo:
    """Scores from a list, and remembers what it was asked."""

    fingerprint = "echo"

    def __init__(self, *scores: float) -> None:
        self.scores, self.asked = list(scores), list[Sample]()

    def score(self, samples: list[Sample]) -> list[float]:
        self.asked += samples
        return [self.scores.pop(0) for _ in samples]


PROMPT = Prompt("p", "p", "r")


def made(text: str, ended: bool = True, prompt: Prompt = PROMPT) -> Completion:
    return Completion(Sample(prompt, text), 3, ended)


def test_centring_is_of_the_raw_reward_and_the_penalty_of_the_centred_one() -> None:
    scorer = Scorer("r", Echo(1.0, 4.0), Centring(mean=2.0, std=0.5), penalty=3.0)
    assert scorer([made("a"), made("b", ended=False)]) == [(1 - 2) / 0.5, (4 - 2) / 0.5 - 3]
    row = scorer.take()
    assert row == {"reward": 2.5, "reward_std": pytest.approx(statistics.stdev([1, 4])), "length": 3, "eos": 0.5}
    assert not scorer.raw


def test_a_reference_is_scored_once_and_taken_off_its_own_prompt() -> None:
    one, two = Prompt("p", "p", "ref one"), Prompt("q", "q", "ref two")
    echo = Echo(1.0, 2.0, 3.0, 10.0, 20.0, 5.0)
    scorer = Scorer("r", echo, Centring(mean=-1.0, std=2.0, references=True), penalty=0.0)
    assert scorer([made("a", prompt=one), made("b", prompt=two), made("c", prompt=one)]) == [-4, -8.5, -3]
    assert [s.completion for s in echo.asked] == ["a", "b", "c", "ref one", "ref two"]
    assert scorer([made("d", prompt=two)]) == [(5 - 20 + 1) / 2]


def test_the_reward_module_gets_sources_and_completions_exactly(ground: Path) -> None:
    """As PPOTrainer calls it; two prompts of one text with other references, a completion that holds the template."""
    tokenizer = load_tokenizer(str(ground / "model"))
    prompts = [Prompt("Say: a\nSynopsis:", "a", "1"), Prompt("Say: long one\nSynopsis:", "long one", "2")]
    prompts.append(Prompt("Say: a\nSynopsis:", "a", "3"))
    batches, echo = Batches(tokenizer, prompts), Echo(1.0, 2.0, 3.0)
    scorer = Scorer("r", echo, Centring(), penalty=0.0)
    module = RewardModule(scorer, tokenizer, batches)
    order = [2, 1, 0]
    batch = batches([{"index": i, "input_ids": prompt_ids(tokenizer, prompts[i])} for i in order])
    said = [" Synopsis: x", " b", " Say: a\nSynopsis: c"]
    ends = [[tokenizer.eos_token_id], [], [tokenizer.eos_token_id]]
    new = [tokenizer(t)["input_ids"] + end for t, end in zip(said, ends, strict=True)]
    width = max(map(len, new))
    padded = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids in new])
    whole = torch.cat([batch["input_ids"], padded], dim=1)
    mask = whole != tokenizer.pad_token_id
    hidden = []
    for part in (slice(0, 2), slice(2, 3)):  # a batch comes in pieces
        output = module.texts(input_ids=whole[part].masked_fill(~mask[part], 0), attention_mask=mask[part])
        hidden.append(module.score(output.hidden_states[-1]))
    assert [(s.prompt, s.completion) for s in echo.asked] == [
        (prompts[i], text.strip()) for i, text in zip(order, said, strict=True)
    ]
    assert torch.cat(hidden)[:, :, 0].tolist() == [[s] * whole.shape[1] for s in (1.0, 2.0, 3.0)]
    assert [c.ended for _, c in scorer.raw] == [True, False, True]
    assert [c.length for _, c in scorer.raw] == [len(ids) for ids in new]


def test_what_was_measured_of_the_sft_model_is_what_centring_says(ground: Path, begun: Path) -> None:
    found = json.loads((begun / "measured" / "near" / "train.json").read_text())
    scores = pq.read_table(begun / "measured" / "near" / "completions.parquet")["reward"].to_pylist()
    assert len(scores) == 6 and found["centring"]["sft"] == {
        "mean": pytest.approx(statistics.fmean(scores)),
        "std": pytest.approx(statistics.stdev(scores)),
        "references": False,
    }


def test_centring_by_references_is_of_the_differences() -> None:
    prompts = [Prompt(t, t, "r") for t in "abc"]
    found = judge("r", Echo(1.0, 1.0, 4.0), prompts, [1.0, 2.0, 3.0])
    assert (
        found["centring"]["reference"] == {"mean": 0.0, "std": 1.0, "references": True} and found["reference_mean"] == 2
    )


def test_a_reward_that_cannot_teach_is_an_error_and_a_saturated_one_a_warning() -> None:
    prompts = [Prompt(t, t) for t in "abcdefghij"]
    with pytest.raises(ValueError, match=r"rewards.r: gives 0.3 to all 10 completions of the SFT model, so it can"):
        judge("r", Echo(), prompts, [0.3] * 10)
    assert saturation([5.0] * 9 + [4.0], []) == [
        "saturated: 90 % of the SFT model's completions score within 1 % of the highest, 5"
    ]
    assert saturation([5.0] * 8 + [4.0] * 2, []) == []
    assert saturation([5.0] * 9 + [4.0], [9.0]) == []  # people do better
    assert saturation([0.975, 0.985, 0.995], []) == [
        "saturated: the SFT model's completions score 0.9850 on average, of at most 1"
    ]
    assert saturation([0.9, 1.0, 1.0], []) == [] and saturation([1.975, 1.985, 1.995], []) == []


# Policies


def test_ppo_makes_each_step_of_the_optimiser_and_learns_factors_alone(
    ground: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = list[int]()
    real = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a: (steps.append(len(_params(self))), real(self))[1])
    training = {"updates": 3, "batch_size": 8, "lr": 1e-3, "mini_batches": 2, "epochs": 3, "micro_batch_size": 2}
    job = policy(tmp_path, ground, begun, training=training)
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


def test_micro_batches_change_nothing_but_memory(ground: Path, begun: Path, tmp_path: Path) -> None:
    found = []
    for micro in (None, 2):
        (tmp_path / str(micro)).mkdir()
        training = {"updates": 1, "batch_size": 8, "lr": 1e-3, "epochs": 1, "micro_batch_size": micro}
        job = policy(tmp_path / str(micro), ground, begun, training=training)
        train(job)
        found.append(load_file(job.folder / "adapter_model.safetensors"))
    one, other = found
    for name in one:  # losses are means over a micro-batch's tokens, which differ a little in number
        assert torch.nn.functional.cosine_similarity(one[name].flatten(), other[name].flatten(), dim=0) > 0.9


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_a_policy_that_was_stopped_ends_with_the_bits_of_an_undisturbed_one(
    ground: Path, begun: Path, tmp_path: Path, algorithm: str
) -> None:
    outs = []
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        kl = {"coef": 0.1, "target": 1.0}
        job = policy(tmp_path / name, ground, begun, algorithm=algorithm, kl=kl, reward_centring="reference")
        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                train_policy(job, stopping(3))
            assert condition(job.folder, job.identity) == "started"
        told = train(job)
        assert told[-1].step == told[-1].total == 4
        outs.append(job)
    whole, stopped = outs
    for file in ("adapter_model.safetensors", "completions.parquet"):
        assert (whole.folder / file).read_bytes() == (stopped.folder / file).read_bytes()
    one, other = ([{k: v for k, v in row.items() if k != "seconds"} for row in table(job)] for job in outs)
    assert one == other and len(one) == 4


def test_the_table_of_a_training_has_what_the_reward_gave(ground: Path, begun: Path, tmp_path: Path) -> None:
    job = policy(tmp_path, ground, begun)
    train(job)
    assert pq.read_schema(job.folder / "training.parquet").equals(TRAINING)
    found = table(job)
    assert [row["step"] for row in found] == [1, 2, 3, 4]
    assert abs(found[0]["kl"]) < 1e-3  # the policy is the SFT model still
    assert all(0 <= row["eos"] <= 1 and 1 <= row["length"] <= 6 and row["kl_coef"] == 0.05 for row in found)
    said = result(job)
    after = pq.read_table(job.folder / "completions.parquet")["reward"].to_pylist()
    assert said["val"]["reward_mean"] == pytest.approx(np.mean(after)) and said["val"]["n"] == 6
    assert (said["algorithm"], said["reward"], said["stopped"], said["kl_limit"]) == ("ppo", "near", "", 25.0)
    assert said["sampled"] == "sampled at temperature 1" and said["updates"] == 4


def test_the_adapter_is_one_of_the_sft_model(ground: Path, begun: Path, tmp_path: Path) -> None:
    """Loaded by peft onto its base, it says what the policy said at its end."""
    from pipeline.train.language.sampling import complete

    job = policy(tmp_path, ground, begun)
    train(job)
    config = json.loads((job.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(job.sft) and config["target_modules"] == sorted(
        config["target_modules"]
    )
    tokenizer = load_tokenizer(str(job.sft))
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(job.sft), job.folder)
    val = load_data(job.spec, tokenizer, loaded.config).val
    said = pq.read_table(job.folder / "completions.parquet")["completion"].to_pylist()
    assert complete(loaded, tokenizer, val, 6) == said


def test_factors_of_a_model_of_the_gpt2_kind_say_that_its_weights_are_turned() -> None:
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
    ground: Path, begun: Path, tmp_path: Path
) -> None:
    job = policy(tmp_path, ground, begun, kl={"coef": 0.2, "target": 0.01})
    train(job)
    found = table(job)
    assert found[0]["kl_coef"] == 0.2 and len({row["kl_coef"] for row in found}) == 4
    for before, after in zip(found, found[1:], strict=False):
        assert after["kl_coef"] == next_coef(before["kl_coef"], before["kl"], 0.01)


def test_the_coefficient_that_is_noted_is_the_one_that_trl_uses(
    ground: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A huge target makes every update lower it by 2 %; the trainer's own penalty is the coefficient times the KL."""
    from transformers import Trainer

    logged = list[dict[str, float]]()
    real = Trainer.log
    monkeypatch.setattr(Trainer, "log", lambda self, logs, *a: (logged.append(dict(logs)), real(self, logs, *a))[1])
    training = {"updates": 4, "batch_size": 8, "lr": 1e-2}
    job = policy(tmp_path, ground, begun, kl={"coef": 0.2, "target": 1e6}, training=training)
    train(job)
    coefs = [-row["objective/non_score_reward"] / row["objective/kl"] for row in logged[1:] if "objective/kl" in row]
    assert coefs == pytest.approx([0.2 * 0.98, 0.2 * 0.98**2, 0.2 * 0.98**3], rel=1e-3)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_a_kl_above_its_stop_ends_training_which_says_so(
    ground: Path, begun: Path, tmp_path: Path, algorithm: str
) -> None:
    training = {"updates": 40, "batch_size": 8, "lr": 3e-2}
    job = policy(tmp_path, ground, begun, algorithm=algorithm, kl={"stop": 0.5}, training=training)
    told, found, said = train(job), table(job), result(job)
    assert 1 < len(found) < 40 and found[-1]["kl"] > 0.5 and all(row["kl"] <= 0.5 for row in found[:-1])
    assert said["stopped"] == f"kl {found[-1]['kl']:.1f} above kl.stop 0.5 after update {len(found)}"
    assert said["updates"] == len(found) and told[-1].step == told[-1].total == 40
    assert bool(said["warnings"]) == (found[-1]["kl"] > 1.0)
    assert job.condition() == "finished"


def test_a_critic_like_the_policy_learns_by_factors(ground: Path, begun: Path, tmp_path: Path) -> None:
    training = {"updates": 3, "batch_size": 8, "lr": 1e-3, "critic": "policy"}
    job = policy(tmp_path, ground, begun, training=training)
    with pytest.raises(KeyboardInterrupt):
        train_policy(job, stopping(3))
    kept = load_file(job.folder / "checkpoint.safetensors")
    critic, score = {name for name in kept if name.startswith("weights.critic.")}, "weights.critic.score.weight"
    assert critic and all(".lora_" in name or name == score for name in critic)
    assert bool(kept[score].any())  # it said 0 at first


def test_a_policy_that_did_not_move_is_refused(ground: Path, begun: Path, tmp_path: Path) -> None:
    job = policy(tmp_path, ground, begun, training={"updates": 1, "batch_size": 8, "lr": 1e-45})
    with pytest.raises(ValueError, match="policies/near: did not move from the SFT model in 1 updates"):
        train(job)


def test_another_sft_model_than_prepared_is_refused(ground: Path, begun: Path, tmp_path: Path) -> None:
    job = policy(tmp_path, ground, begun)
    config = job.sft / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ValueError, match="policies/near: another sft here than where the run was prepared"):
        train(job)


def test_a_folder_that_holds_another_run_is_refused(ground: Path, begun: Path, tmp_path: Path) -> None:
    train(policy(tmp_path, ground, begun))
    other = policy(tmp_path, ground, begun, kl={"coef": 0.1})
    with pytest.raises(ValueError, match=r"holds a model that was made otherwise: kl.coef 0.05, not 0.1"):
        other.condition()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "reward 'rewards.broken': 4 of 4 scores are not finite"),
        ("short", "reward 'rewards.short': must give one score a completion, got scores of shape"),
        ("missing", "rewards.missing: .*own.py: has no function 'missing'"),
    ],
)
def test_a_reward_that_is_none_is_told_before_anything_is_trained(
    ground: Path, tmp_path: Path, name: str, message: str
) -> None:
    rewards = {name: {"source": f"{ground / 'own.py'}:{name}"}}
    with pytest.raises(ValueError, match=message):
        stages(read_ppo(tmp_path, ground, rewards=rewards), tmp_path / "out")


def test_references_that_are_not_there_are_missed(ground: Path, tmp_path: Path) -> None:
    shutil.copytree(ground / "prompts", tmp_path / "prompts")
    lines = (tmp_path / "prompts" / "train.jsonl").read_text().splitlines()
    lines[3] = json.dumps({"source": json.loads(lines[3])["source"]})
    (tmp_path / "prompts" / "train.jsonl").write_text("\n".join(lines) + "\n")
    prompts = {"source": str(tmp_path / "prompts")}
    with pytest.raises(ValueError, match="1 of 24 rows of train have no reference, which sft needs"):
        stages(read_ppo(tmp_path, ground, prompts=prompts), tmp_path / "out")
    with pytest.raises(ValueError, match="rows of train have no reference, which reward_centring: reference needs"):
        stages(read_ppo(tmp_path, ground, prompts=prompts, sft=None, reward_centring="reference"), tmp_path / "out")
    stages(read_ppo(tmp_path, ground, prompts=prompts, sft=None), tmp_path / "out")


def test_order_of_prompts_is_whole_passes_and_follows_from_the_seed() -> None:
    found = rows(5, 0, 15, 1)
    assert [sorted(found[i : i + 5]) for i in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert found[3:9] == rows(5, 3, 9, 1) and rows(50, 0, 50, 1) != rows(50, 0, 50, 2)
