"""Completions of the val prompts, and their rewards."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from pipeline.records.tables import write
from pipeline.train.model_folder import COMPLETIONS
from tasks.language.base import Decoding, Prompt, Reward, Sample
from tasks.language.generation import TransformersEngine
from tasks.language.rewards.loading import checked

#: completions.parquet has one row for each prompt, in the order of val.
COMPLETIONS_SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.string(), False),
        pa.field("reference", pa.string(), False),
        pa.field("completion", pa.string(), False),
        pa.field("reward", pa.float64(), False),  # raw
    ]
)
#: How models are measured, and how train.json and tables describe it.
TEMPERATURE, SAMPLED = 1.0, "sampled at temperature 1"


def complete(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], max_new_tokens: int
) -> list[str]:
    """Return one sampled completion a prompt; every model gets the same random numbers."""
    engine = TransformersEngine(model, tokenizer, model.device)
    return engine.complete(prompts, [0] * len(prompts), Decoding(max_new_tokens, TEMPERATURE))


def score(name: str, reward: Reward, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
    """Return the raw reward of each completion.

    Raises:
        ValueError: as `tasks.language.rewards.loading.checked`.
    """
    samples = [Sample(p, c) for p, c in zip(prompts, completions, strict=True)]
    return [float(s) for s in checked(name, reward, samples)]


def write_completions(
    folder: Path, prompts: Sequence[Prompt], completions: Sequence[str], scores: Sequence[float]
) -> None:
    """Write prompts, completions and scores to completions.parquet."""
    rows = [
        {"prompt": p.text, "reference": p.reference, "completion": c, "reward": s}
        for p, c, s in zip(prompts, completions, scores, strict=True)
    ]
    write(folder / COMPLETIONS, rows, COMPLETIONS_SCHEMA)


def summary(scores: Sequence[float]) -> dict[str, float]:
    """Return mean and standard deviation under their names in train.json."""
    return {"reward_mean": statistics.fmean(scores), "reward_std": statistics.stdev(scores)}
