"""Train one policy: LoRA factors of the SFT model that learn a reward, in segments of `checkpoint_every` updates.

A segment depends only on factors, critic, AdamW's moments, the log so far and (seed, number of its first update), so a
run that was killed ends with the bits of an undisturbed one (on the CPU with as many threads).
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
from pipeline.train.ppo.segment import Segment, Stopped
from pipeline.train.ppo.sft_scores import centring_of, load_entry, read_measured
from pipeline.train.ppo.spec import Kl, PolicyRun
from pipeline.versions import exact_versions
from tasks.language.models import load_tokenizer

_TRAIN: dict[str, Callable[[Segment], None]] = {"ppo": ppo.train, "rloo": groups.train, "grpo": groups.train}


def train_policy(job: PpoJob, report: Callable[[TrainingStatus], None]) -> None:
    """Train a policy to its end, from its last checkpoint if it has one.

    Raises:
        ValueError: if this machine has another SFT model, prompts or reward than the one that prepared, scores or the
            KL are not finite, or the factors did not move.
    """
    torch.set_num_threads(max(1, int(job.spec.resources.per_worker.num_cpus)))
    job.folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        learning = _PolicyState(job)
        learning.work(report)
        learning.finish()
    report(TrainingStatus(job.total, job.total))


class _PolicyState:
    """The policy in memory, its critic, prompts, reward and progress."""

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
            restore_weights(self._parameters(), self._state)  # there may be no segment left that would restore them
        self._started = time.perf_counter()

    def _check(self, sft: str, reward: str) -> None:
        mine = {"sft": sft, "prompts": self._data.fingerprint, "reward_fingerprint": reward}
        if differs := [key for key, value in mine.items() if self._job.identity[key] != value]:
            raise ValueError(
                f"{self._job.name}: this machine has another {', '.join(differs)} than the one that prepared the "
                "training"
            )

    def _make_critic(self, model: Any) -> Any:
        if self._run.algorithm != "ppo":
            return None
        settings = self._settings
        critic = make_critic(settings.critic, str(self._job.sft), model.config, self._job.spec.lora, settings.seed)
        return critic.to(self._job.device_type)

    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return everything that learns, by name."""
        critic = {} if self._critic is None else trained(self._critic, "critic.")
        return trained(self._policy, "policy.") | critic

    @property
    def _stopped(self) -> str:
        """Why training ends before its last update, "" if it does not."""
        return stopped(self._state.log, self._job.spec.kl)

    def work(self, report: Callable[[TrainingStatus], None]) -> None:
        """Train every segment that is left."""
        while self._state.step < self._job.total and not self._stopped:
            last = min(self._state.step + self._job.spec.checkpoint_every, self._job.total)
            self._segment(last, report)
            self._save()

    def _segment(self, last: int, report: Callable[[TrainingStatus], None]) -> None:
        """Train up to update `last`, or until the KL is too large."""
        first, settings = self._state.step, self._settings
        parameters = self._parameters()
        optimiser = torch.optim.AdamW(parameters.values(), lr=settings.lr, weight_decay=0.0)
        if first:
            restore(optimiser, parameters, replace(self._state, step=first * settings.steps))
        segment = Segment(
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
        set_seed(segment.seed)  # PPOTrainer seeds only torch, but shuffles with numpy
        with suppress(Stopped):
            _TRAIN[self._run.algorithm](segment)
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
        """Write the adapter, the policy's completions of val with their scores, and the result."""
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
    """Return the number of prompts in a batch of completions."""
    return run.settings.batch_size // (1 if run.algorithm == "ppo" else run.settings.samples_per_prompt)


def stopped(log: list[dict[str, Any]], kl: Kl) -> str:
    """Return why training ended early, such as "kl 31.2 above kl.stop 20 after update 7", "" if it did not."""
    if not log or kl.stop is None or log[-1]["kl"] <= kl.stop:
        return ""
    return f"kl {log[-1]['kl']:.1f} above kl.stop {kl.stop:g} after update {log[-1]['step']}"


def ran_away(found: float, kl: Kl) -> list[str]:
    """Return a warning if the KL is far above what the spec allows."""
    most = limit(kl)
    return [f"KL ran away: {found:.1f} nats a completion in the last update, above {most:g}"] if found > most else []


def _check_moved(policy: Any, job: PpoJob) -> None:
    """Check that B is not all zero, as at the start: then the policy would be the SFT model."""
    if not any(bool(p.any()) for name, p in trained(policy).items() if ".lora_B." in name):
        raise ValueError(
            f"{job.name}: did not move from the SFT model in {job.total} updates: raise training.lr, and check that "
            "the reward differs between completions"
        )


def _write_adapter(policy: Any, job: PpoJob) -> None:
    """Write the two files of a peft adapter; save_pretrained would order modules differently every time."""
    config: dict[str, Any] = policy.peft_config["default"].to_dict()
    config |= {"inference_mode": True, "base_model_name_or_path": str(job.sft)}
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (job.folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    state = get_peft_model_state_dict(policy, save_embedding_layers=False)
    write_safetensors(job.folder / FACTORS, {name: t.detach().cpu() for name, t in state.items()}, {})
