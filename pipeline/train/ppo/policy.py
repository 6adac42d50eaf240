"""One policy: factors beside the SFT model's weights that learn a reward, in stretches of `checkpoint_every` updates.

What a stretch does follows from factors, critic, AdamW's moments, the rows so far and (seed, number of its first
update) alone, so that a run that was killed ends with the bits of an undisturbed one (on the CPU with as many threads).
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import torch
from peft import get_peft_model_state_dict
from transformers import set_seed

from pipeline.checkpoints.writing import write_safetensors
from pipeline.records.tables import write
from pipeline.train.job import TrainingStatus
from pipeline.train.lora import CONFIG, FACTORS
from pipeline.train.model_folder import (
    State,
    finish,
    load_state,
    optimiser_tensors,
    restore,
    restore_weights,
    save_state,
)
from pipeline.train.policy_log import TRAINING, TRAINING_FILE
from pipeline.train.ppo import ppo
from pipeline.train.ppo import rloo_grpo as groups
from pipeline.train.ppo.critic import make_critic
from pipeline.train.ppo.data import load_data, rows
from pipeline.train.ppo.jobs import PpoJob
from pipeline.train.ppo.kl import limit, next_coef
from pipeline.train.ppo.models import load_plain, model_fingerprint, small_seed, trained, with_factors
from pipeline.train.ppo.quiet import quiet
from pipeline.train.ppo.reward_model import RewardScorer
from pipeline.train.ppo.sampling import SAMPLED, complete, score, summary, write_completions
from pipeline.train.ppo.segment import Stopped, Stretch
from pipeline.train.ppo.sft_scores import centring_of, load_entry, read_measured
from pipeline.train.ppo.spec import Kl, PolicyRun
from pipeline.versions import exact_versions
from tasks.language.models import load_tokenizer

_TRAIN: dict[str, Callable[[Stretch], None]] = {"ppo": ppo.train, "rloo": groups.train, "grpo": groups.train}


def train_policy(job: PpoJob, report: Callable[[TrainingStatus], None]) -> None:
    """Train a policy to its end, from its last checkpoint where it has one.

    Raises:
        ValueError: this machine sees another SFT model, prompts or reward; scores or a KL that are not finite; or
            factors that did not move.
    """
    torch.set_num_threads(max(1, int(job.spec.resources.per_worker.num_cpus)))
    job.folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        learning = _Learning(job)
        learning.work(report)
        learning.finish()
    report(TrainingStatus(job.total, job.total))


class _Learning:
    """The policy in memory, its critic, prompts and reward, and how far it is."""

    def __init__(self, job: PpoJob) -> None:
        assert job.run is not None
        self._job, self._run, sft = job, job.run, str(job.sft)
        self._settings = job.run.settings
        self._tokenizer = load_tokenizer(sft)
        model = load_plain(sft, self._tokenizer, getattr(torch, job.spec.precision))
        self._data = load_data(job.spec, self._tokenizer, model.config)
        reward = load_entry(job.run.reward, job.spec.rewards[job.run.reward], job.device_type)
        self._check(model_fingerprint(sft), reward.fingerprint)
        self._measured = read_measured(job.folder.parents[1] / "measured" / job.run.reward)
        self._centring = centring_of(job.run.reward, self._measured, job.spec.reward_centring)
        name = f"rewards.{job.run.reward}"
        self._scorer = RewardScorer(name, reward, self._centring, self._settings.missing_eos_penalty)
        self._critic = self._make_critic(model)
        self._policy = with_factors(model, job.spec.lora, job.sft, self._settings.seed).to(job.device_type)
        self._state = load_state(job.folder) if job.condition() == "started" else State()
        if self._state.step:
            restore_weights(self._parameters(), self._state)  # no stretch may be left that would
        self._started = time.perf_counter()

    def _check(self, sft: str, reward: str) -> None:
        mine = {"sft": sft, "prompts": self._data.fingerprint, "reward_fingerprint": reward}
        if differs := [key for key, value in mine.items() if self._job.identity[key] != value]:
            raise ValueError(f"{self._job.name}: another {', '.join(differs)} here than where the run was prepared")

    def _make_critic(self, model: Any) -> Any:
        if self._run.algorithm != "ppo":
            return None
        settings = self._settings
        critic = make_critic(settings.critic, str(self._job.sft), model.config, self._job.spec.lora, settings.seed)
        return critic.to(self._job.device_type)

    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        """All that learns."""
        critic = {} if self._critic is None else trained(self._critic, "critic.")
        return trained(self._policy, "policy.") | critic

    @property
    def _stopped(self) -> str:
        """Why no more is to be done before the last update; "" where nothing stops it."""
        return stopped(self._state.log, self._job.spec.kl)

    def work(self, report: Callable[[TrainingStatus], None]) -> None:
        """Every stretch that is left."""
        while self._state.step < self._job.total and not self._stopped:
            last = min(self._state.step + self._job.spec.checkpoint_every, self._job.total)
            self._stretch(last, report)
            self._save()

    def _stretch(self, last: int, report: Callable[[TrainingStatus], None]) -> None:
        """Train up to the update `last`, or up to where the KL is too large."""
        first, settings = self._state.step, self._settings
        parameters = self._parameters()
        optimiser = torch.optim.AdamW(parameters.values(), lr=settings.lr, weight_decay=0.0)
        if first:
            restore(optimiser, parameters, replace(self._state, step=first * settings.steps))
        stretch = Stretch(
            name=self._job.name,
            spec=self._job.spec,
            run=self._run,
            policy=self._policy,
            critic=self._critic,
            tokenizer=self._tokenizer,
            prompts=self._prompts(first, last),
            scorer=self._scorer,
            optimiser=optimiser,
            seed=small_seed("policy", settings.seed, first),
            updates=last - first,
            coef=self._coef(),
            log=self._state.log,
            report=report,
            use_cpu=self._job.device_type == "cpu",
        )
        set_seed(stretch.seed)  # PPOTrainer seeds torch alone, and shuffles with numpy
        with suppress(Stopped):
            _TRAIN[self._run.algorithm](stretch)
        tensors = optimiser_tensors(optimiser, parameters)
        self._state = replace(self._state, step=len(self._state.log), tensors=tensors)

    def _prompts(self, first: int, last: int) -> list[Any]:
        count, train = prompts_an_update(self._run), self._data.train
        return [train[i] for i in rows(len(train), first * count, last * count, self._settings.seed)]

    def _coef(self) -> float:
        log, kl = self._state.log, self._job.spec.kl
        return next_coef(log[-1]["kl_coef"], log[-1]["kl"], kl.target) if log else kl.coef

    def _save(self) -> None:
        write(self._job.folder / TRAINING_FILE, self._state.log, TRAINING)
        save_state(self._job.folder, self._job.identity, replace(self._state, seconds=self._seconds()))

    def _seconds(self) -> float:
        return self._state.seconds + time.perf_counter() - self._started

    def finish(self) -> None:
        """Write adapter and result, after a look at what the policy now says of val."""
        job, seconds = self._job, self._seconds()
        _check_moved(self._policy, job)
        _write_adapter(self._policy, job)
        self._policy.eval()
        prompts = self._data.val
        completions = complete(self._policy, self._tokenizer, prompts, job.spec.max_new_tokens)
        scores = score(self._scorer.name, self._scorer.reward, prompts, completions)
        write_completions(job.folder, prompts, completions, scores)
        last = self._state.log[-1]
        result = {
            "name": self._run.name,
            "algorithm": self._run.algorithm,
            "reward": self._run.reward,
            "identity": job.identity,
            "updates": self._state.step,
            "stopped": self._stopped,
            "sft": self._measured["sft"],
            "val": {**summary(scores), "n": len(scores)},
            "sampled": SAMPLED,
            "centring": asdict(self._centring),
            "kl": last["kl"],
            "kl_limit": limit(job.spec.kl),
            "warnings": [*self._measured["warnings"], *ran_away(last["kl"], job.spec.kl)],
            "trained_parameters": sum(p.numel() for p in trained(self._policy).values()),
            "seconds": round(seconds, 2),
            "device": job.device_type,
            "versions": exact_versions("trl"),
        }
        finish(job.folder, result)


def prompts_an_update(run: PolicyRun) -> int:
    """How many prompts a batch of completions has."""
    return run.settings.batch_size // (1 if run.algorithm == "ppo" else run.settings.samples_per_prompt)


def stopped(log: list[dict[str, Any]], kl: Kl) -> str:
    """Why training ended before its last update, such as "kl 31.2 above kl.stop 20"; "" where it did not."""
    if not log or kl.stop is None or log[-1]["kl"] <= kl.stop:
        return ""
    return f"kl {log[-1]['kl']:.1f} above kl.stop {kl.stop:g} after update {log[-1]['step']}"


def ran_away(found: float, kl: Kl) -> list[str]:
    """A warning where a KL is far beyond what was wanted."""
    most = limit(kl)
    return [f"KL ran away: {found:.1f} nats a completion in the last update, above {most:g}"] if found > most else []


def _check_moved(policy: Any, job: PpoJob) -> None:
    """B starts at zero, and with B at zero the policy is the SFT model."""
    if not any(bool(p.any()) for name, p in trained(policy).items() if ".lora_B." in name):
        raise ValueError(
            f"{job.name}: did not move from the SFT model in {job.total} updates: raise training.lr, and look at "
            "whether its reward tells completions apart"
        )


def _write_adapter(policy: Any, job: PpoJob) -> None:
    """The two files of a peft adapter; not by its own save_pretrained, which orders modules differently every time."""
    config: dict[str, Any] = policy.peft_config["default"].to_dict()
    config |= {"inference_mode": True, "base_model_name_or_path": str(job.sft)}
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (job.folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    state = get_peft_model_state_dict(policy, save_embedding_layers=False)
    write_safetensors(job.folder / FACTORS, {name: t.detach().cpu() for name, t in state.items()}, {})
