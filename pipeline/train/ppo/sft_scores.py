"""Measure a reward on the SFT model before a policy learns it: for centring, and to detect useless rewards."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.spec.generation import RewardSpec
from pipeline.train.job import TrainingStatus
from pipeline.train.model_folder import RESULT, finish
from pipeline.train.ppo.data import load_data
from pipeline.train.ppo.jobs import PpoJob
from pipeline.train.ppo.models import load_plain
from pipeline.train.ppo.quiet import quiet
from pipeline.train.ppo.reward_model import Centring
from pipeline.train.ppo.sampling import SAMPLED, complete, score, summary, write_completions
from tasks.language.base import Prompt, Reward
from tasks.language.models import load_tokenizer
from tasks.language.rewards.loading import load_reward

#: A reward is saturated if this share of the SFT model's completions score at most this far below the highest score, as
#: a share of the span of all scores, references included.
_MANY, _NEAR = 0.9, 0.01
#: A reward with all scores in [0, 1] is saturated above this mean too.
_PROBABLE = 0.98


def measure(job: PpoJob, report: Callable[[TrainingStatus], None]) -> None:
    """Score the SFT model's completions of val by the reward that names the job's folder, and write train.json.

    Raises:
        ValueError: if scores are not finite, too few or too many, or all the same.
    """
    torch.set_num_threads(max(1, int(job.spec.resources.per_worker.num_cpus)))
    started, name = time.perf_counter(), job.folder.name
    job.folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        tokenizer = load_tokenizer(str(job.sft))
        model: Any = load_plain(str(job.sft), tokenizer, getattr(torch, job.spec.precision))
        prompts = load_data(job.spec, tokenizer, model.config).val
        completions = complete(model.to(job.device_type), tokenizer, prompts, job.spec.max_new_tokens)
        reward = load_entry(name, job.spec.rewards[name], job.device_type)
        scores = score(f"rewards.{name}", reward, prompts, completions)
        found = judge(name, reward, prompts, scores)
    write_completions(job.folder, prompts, completions, scores)
    result = {"identity": job.identity, **found, "sampled": SAMPLED, "seconds": round(time.perf_counter() - started, 2)}
    finish(job.folder, result)
    report(TrainingStatus(job.total, job.total))


def load_entry(name: str, entry: RewardSpec, device_type: str) -> Reward:
    """Load a reward of the spec.

    Raises:
        ValueError: as `tasks.language.rewards.loading.load_reward`, with the field's path in front.
    """
    try:
        return load_reward(entry.source, entry.options, torch.device(device_type))
    except ValueError as error:
        raise ValueError(f"rewards.{name}: {error}") from error


def judge(name: str, reward: Reward, prompts: Sequence[Prompt], scores: Sequence[float]) -> dict[str, Any]:
    """Return the centring for each `reward_centring`, the statistics of the scores, and warnings.

    Args:
        name: of the reward in the spec.
        reward: scores the references too, if all prompts have one.
        prompts: of the completions.
        scores: raw scores of the SFT model's completions.

    Raises:
        ValueError: if the scores do not vary.
    """
    if len(scores) < 2 or max(scores) - min(scores) <= 1e-6 * max(1.0, abs(scores[0])):
        raise ValueError(
            f"rewards.{name}: gives {scores[0]:.4g} to all {len(scores)} completions of the SFT model, so it can teach "
            "nothing: use another reward, or more val prompts"
        )
    centring = {"none": asdict(Centring()), "sft": asdict(_centring(scores, references=False))}
    found: dict[str, Any] = {"sft": summary(scores), "n": len(scores), "centring": centring}
    if not all(p.reference for p in prompts):
        return {**found, "warnings": saturation(scores, [])}
    human = score(f"rewards.{name}", reward, prompts, [p.reference for p in prompts])
    differences = [s - h for s, h in zip(scores, human, strict=True)]
    centring["reference"] = asdict(_centring(differences, references=True))
    return {**found, "reference_mean": statistics.fmean(human), "warnings": saturation(scores, human)}


def _centring(values: Sequence[float], references: bool) -> Centring:
    return Centring(statistics.fmean(values), statistics.stdev(values), references)


def saturation(scores: Sequence[float], human: Sequence[float]) -> list[str]:
    """Return a warning if a reward can hardly rise above the SFT model's; the constants are the rule."""
    everything = [*scores, *human]
    top, span = max(everything), max(everything) - min(everything)
    near = statistics.fmean(s >= top - _NEAR * span for s in scores)
    mean = statistics.fmean(scores)
    if near >= _MANY:
        return [
            f"saturated: {100 * near:.0f} % of the SFT model's completions score within 1 % of the highest, {top:.4g}"
        ]
    if min(everything) >= 0 and top <= 1 and mean > _PROBABLE:
        return [f"saturated: the SFT model's completions score {mean:.4f} on average, of at most 1"]
    return []


def centring_of(name: str, measured: Mapping[str, Any], kind: str) -> Centring:
    """Return the centring of a policy's reward.

    Args:
        name: of the reward in the spec.
        measured: the result of `judge`.
        kind: the spec's `reward_centring`.

    Raises:
        ValueError: if its deviation is 0.
    """
    centring = Centring(**measured["centring"][kind])
    if centring.std == 0:
        raise ValueError(
            f"rewards.{name}: reward_centring: {kind}: completions and references differ by {centring.mean:g} for all "
            f"{measured['n']} prompts: check that the reward depends on the completion; if it does, centre by sft"
        )
    return centring


def read_measured(folder: Path) -> dict[str, Any]:
    """Read the result of `judge` from a folder."""
    found: dict[str, Any] = json.loads((folder / RESULT).read_text())
    return found
