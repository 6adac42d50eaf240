"""A real `lines ppo` that takes seconds: a tiny random Llama, two Python functions as rewards, a few updates."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from tiny_language import TEMPLATE, write_prompts, write_tiny_llama

from pipeline.train.job import TrainingStatus
from pipeline.train.ppo.jobs import PpoJob
from pipeline.train.ppo.policy import train_policy
from pipeline.train.ppo.preparation import Stages
from pipeline.train.ppo.sft import train_sft
from pipeline.train.ppo.sft_scores import measure
from pipeline.train.ppo.spec import PpoSpec, load_ppo_spec

REWARDS = '''"""Rewards of the small spec."""


def vowels(sources, completions):
    """Vowels a character."""
    return [sum(c in "aeiou" for c in text) / (1 + len(text)) for text in completions]


def near(sources, completions):
    """Letters of the completion that the source has, a letter; by both, so that a wrong source shows."""
    return [sum(c in set(s) for c in t) / (1 + len(t)) - len(s) / 1000 for s, t in zip(sources, completions)]


def constant(sources, completions):
    return [0.25 for _ in completions]


def broken(sources, completions):
    return [float("nan") for _ in completions]


def failing(sources, completions):
    return [{}["colour"] for _ in completions]


def short(sources, completions):
    return [0.0 for _ in completions][1:]


def sure(sources, completions):
    return [1.0 - 0.001 * (len(text) % 7) for text in completions]
'''


def write_ground(folder: Path) -> Path:
    """Write a model, prompts and own.py with the rewards."""
    write_tiny_llama(folder / "model", layers=2)
    write_prompts(folder / "prompts", train=24, val=6, test=1)
    (folder / "own.py").write_text(REWARDS)
    return folder


def small_ppo(ground: Path, **changes: Any) -> dict[str, Any]:
    """Return a spec of four SFT steps and two policies of four updates, with a checkpoint after every second one."""
    return {
        "name": "small",
        "base": str(ground / "model"),
        "prompts": {"source": str(ground / "prompts"), "template": TEMPLATE, "max_source_tokens": 48},
        "max_new_tokens": 6,
        "sft": {"steps": 4, "batch_size": 4, "lr": 1e-2, "lora": {"r": 4, "alpha": 8}, "checkpoint_every": 2},
        "rewards": {name: {"source": f"{ground / 'own.py'}:{name}"} for name in ("vowels", "near")},
        "lora": {"r": 4, "alpha": 8},
        "training": {"updates": 4, "batch_size": 8, "lr": 1e-3},
        "checkpoint_every": 2,
        "resources": {"pool": "local"},
        **changes,
    }


def write_ppo(folder: Path, ground: Path, **changes: Any) -> Path:
    """Write the spec to a file in `folder`."""
    path = folder / "ppo.yaml"
    path.write_text(yaml.safe_dump(small_ppo(ground, **changes), sort_keys=False))
    return path


def read_ppo(folder: Path, ground: Path, **changes: Any) -> PpoSpec:
    """Write the spec, read it back and check it."""
    return load_ppo_spec(write_ppo(folder, ground, **changes))


def weights(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the SFT model and the adapters in a command's folder."""
    kinds = ("model.safetensors", "adapter_model.safetensors")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.name in kinds}


def ignore(status: TrainingStatus) -> None:
    """Ignore progress."""


def stages(spec: PpoSpec, out: Path) -> Stages:
    return Stages(spec, out, "cpu", lambda *_: None)


def begin(folder: Path, ground: Path) -> Path:
    """Return a command's folder in which all but the policies is trained."""
    out = folder / "out"
    made = stages(read_ppo(folder, ground), out)
    for job in made.first():
        train_sft(job, ignore)
    for job in made.measurements():
        measure(job, ignore)
    return out


def policy(folder: Path, ground: Path, after_sft: Path, name: str = "near", **changes: Any) -> PpoJob:
    """Return the job of one policy in a copy of `after_sft`."""
    out = folder / "out"
    if not out.exists():
        shutil.copytree(after_sft, out)
    spec = read_ppo(folder, ground, **changes)
    made = stages(spec, out)
    for job in made.measurements():
        if changes and job.condition() != "finished":
            measure(job, ignore)
    return next(job for job in made.policies() if job.name == f"policies/{name}")


def train(job: PpoJob) -> list[TrainingStatus]:
    states: list[TrainingStatus] = []
    train_policy(job, states.append)
    return states


def table(job: PpoJob) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(job.folder / "training.parquet").to_pylist()
    return found


def result(job: PpoJob) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.folder / "train.json").read_text())
    return found


def stop(*_: object) -> None:
    """Raise Ctrl-C in place of a function."""
    raise KeyboardInterrupt


def stopping(at: int) -> Callable[[TrainingStatus], None]:
    """Return a report that raises Ctrl-C at the step `at`."""

    def report(status: TrainingStatus) -> None:
        if status.step == at:
            raise KeyboardInterrupt

    return report
