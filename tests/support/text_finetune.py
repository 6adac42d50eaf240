"""Fine-tunings of tiny language models, executed."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from small_texts import write_language_base, write_text_finetune
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pipeline.train.finetune.preparation import FinetuneJob, prepare
from pipeline.train.finetune.spec import load_finetune_spec
from pipeline.train.finetune.trainer import finetune

FAMILIES = ("causal", "seq2seq", "encoder")
AUTO: dict[str, Any] = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM, "encoder": AutoModel}
#: Every row is in the only batch, so that its order does not matter.
WHOLE = {"lr": 1e-3, "steps": 1, "batch_size": 24}


def jobs(folder: Path, family: str, **changes: Any) -> dict[str, FinetuneJob]:
    spec = load_finetune_spec(write_text_finetune(folder, family, **changes))
    return {j.name: j for j in prepare(spec, folder / "out", "cpu", lambda *_: None)}


def train(made: FinetuneJob) -> list[dict[str, Any]]:
    """Train a model, and return its log."""
    finetune(made, lambda status: None)
    found: list[dict[str, Any]] = pq.read_table(made.folder / "log.parquet").to_pylist()
    return found


def without_dropout(folder: Path, family: str) -> Path:
    """Write the base with dropout 0, and return its folder."""
    path = write_language_base(folder / "base", family) / "config.json"
    config = json.loads(path.read_text())
    off = {name: 0.0 for name in config if "dropout" in name and isinstance(config[name], float)}
    path.write_text(json.dumps(config | off))
    return path.parent
