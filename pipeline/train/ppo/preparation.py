"""Check the inputs of `lines ppo`, and make the jobs of each stage: the SFT model, measurements, policies."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from pipeline.loading.missing import report_missing
from pipeline.loading.model import Report
from pipeline.train.job import Stage
from pipeline.train.ppo.data import Data, load_data
from pipeline.train.ppo.jobs import PpoJob
from pipeline.train.ppo.models import check_targets, model_fingerprint
from pipeline.train.ppo.policy import train_policy
from pipeline.train.ppo.quiet import quiet
from pipeline.train.ppo.sampling import score
from pipeline.train.ppo.sft import train_sft
from pipeline.train.ppo.sft_scores import load_entry, measure
from pipeline.train.ppo.spec import PolicyRun, PpoSpec, runs_of
from tasks.language.models import load_tokenizer, model_folder
from tasks.language.rewards.loading import reward_fingerprint

#: Number of prompts on whose references a reward is tried.
_TRIAL_SIZE = 4


class Stages:
    """The stages of a command, in order, from inputs that are read once."""

    def __init__(self, spec: PpoSpec, out: Path, device_type: str, report: Report) -> None:
        """Check base, prompts and rewards.

        Args:
            spec: of the command.
            out: folder of the models.
            device_type: "cpu" or "cuda": where workers train.
            report: called with the progress.

        Raises:
            ValueError: if an input is wrong; the field or file is named.
        """
        self._spec, self._out, self._device_type = spec, out, device_type
        report("looking for base, prompts and rewards", 0, 1)
        _check_present(spec)
        report("reading prompts", 0, 1)
        folder = model_folder(spec.base)
        with quiet():
            config = AutoConfig.from_pretrained(folder)
            for field, lora in (("sft.lora", spec.sft and spec.sft.lora), ("lora", spec.lora)):
                if lora:
                    check_targets(config, field, lora)
            self._data: Data = load_data(spec, load_tokenizer(spec.base), config)
            self._rewards: dict[str, str] = {}
            for done, name in enumerate(spec.rewards):
                report(f"trying reward {name}", done, len(spec.rewards))
                self._rewards[name] = self._try(name)

    def _try(self, name: str) -> str:
        """Check that a reward gives a finite number for each completion; return its fingerprint."""
        reward = load_entry(name, self._spec.rewards[name], "cpu")
        prompts = self._data.val[:_TRIAL_SIZE]
        score(f"rewards.{name}", reward, prompts, [p.reference or p.source for p in prompts])
        return reward.fingerprint

    @property
    def sft(self) -> Path:
        """The folder of the SFT model."""
        return self._out / "sft" if self._spec.sft else model_folder(self._spec.base)

    def __iter__(self) -> Iterator[Stage[PpoJob]]:
        """Yield each stage once the one before it is trained: the SFT model, measurements, policies."""
        yield Stage("SFT models", train_sft, self.first())
        yield Stage("rewards measured", measure, self.measurements())
        yield Stage("policies", train_policy, self.policies())

    def first(self) -> list[PpoJob]:
        """Return the job of the SFT model; none if the base is one."""
        sft = self._spec.sft
        if sft is None:
            return []
        identity = {
            "base": model_fingerprint(self._spec.base),
            "prompts": self._data.train_fingerprint,
            "precision": self._spec.precision,
            "sft": sft.model_dump(mode="json"),
        }
        return [self._job("sft", identity, sft.steps)]

    def measurements(self) -> list[PpoJob]:
        """Return one job for each reward that a policy learns; the SFT model must exist."""
        sft, names = model_fingerprint(str(self.sft)), dict.fromkeys(run.reward for run in runs_of(self._spec))
        return [self._job(f"measured/{name}", self._common(sft, name), 1) for name in names]

    def policies(self) -> list[PpoJob]:
        """Return one job for each policy; the SFT model must exist."""
        sft, spec = model_fingerprint(str(self.sft)), self._spec
        shared = {
            "precision": spec.precision,
            "reward_centring": spec.reward_centring,
            "lora": spec.lora.model_dump(mode="json"),
            "kl": spec.kl.model_dump(mode="json"),
            "checkpoint_every": spec.checkpoint_every,
        }
        return [
            self._job(
                f"policies/{r.name}", {**self._common(sft, r.reward), **shared, **r.to_json()}, r.settings.updates, r
            )
            for r in runs_of(spec)
        ]

    def _common(self, sft: str, reward: str) -> dict[str, Any]:
        return {
            "sft": sft,
            "prompts": self._data.fingerprint,
            "reward_fingerprint": self._rewards[reward],
            "max_new_tokens": self._spec.max_new_tokens,
        }

    def _job(self, name: str, identity: dict[str, Any], total: int, run: PolicyRun | None = None) -> PpoJob:
        as_stored = json.loads(json.dumps(identity))
        return PpoJob(name, self._out / name, as_stored, total, self._device_type, self._spec, self.sft, run)


def _check_present(spec: PpoSpec) -> None:
    """Look for the base, the prompts and each reward.

    Raises:
        ValueError: if some are missing or have a wrong option: each is named by its field.
    """
    looks: dict[str, Callable[[], object]] = {
        "base": partial(model_folder, spec.base),
        "prompts.source": partial(model_folder, spec.prompts.source),
    }
    for name, entry in spec.rewards.items():
        looks[f"rewards.{name}"] = partial(reward_fingerprint, entry.source, entry.options)
    missing = []
    for field, look in looks.items():
        try:
            look()
        except ValueError as error:
            missing.append(f"{field}: {error}")
    report_missing(missing)
