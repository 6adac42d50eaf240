"""Causal models as the backbone and as transformers load them, and damaged copies of their folders."""

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lora import read_adapter
from pipeline.merging.low_rank import LowRankDelta
from tasks.language.causal import CausalBackbone, build
from tasks.language.seq2seq import Seq2SeqBackbone

CPU = torch.device("cpu")


def built(folder: Path, dtype: torch.dtype = torch.float32, **options: object) -> CausalBackbone:
    """Return the backbone of a model's folder."""
    return build(str(folder), read_checkpoint(str(folder)).state, CPU, dtype, options)


def reference(folder: Path) -> PreTrainedModel:
    """Return the model as transformers loads it."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, PreTrainedModel)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    """Return the logits (2, 20, vocabulary) of fixed tokens."""
    tokens = torch.arange(3, 43).reshape(2, 20)
    with torch.inference_mode():
        found: Tensor = model(input_ids=tokens).logits
    return found


def low_rank(backbone: CausalBackbone | Seq2SeqBackbone, adapter: Path) -> LowRankDelta:
    """Return an adapter as a task vector of the backbone."""
    found = read_adapter(locate(str(adapter)))
    parts = backbone.weight_parts(found.factors, str(adapter))
    return found.task_vector(parts, {name: p.shape for name, p in backbone.module.named_parameters()})


def copied(folder: Path, to: Path, *without: str) -> Path:
    """Copy a folder without some of its files."""
    shutil.copytree(folder, to)
    for name in without:
        (to / name).unlink()
    return to


def edit_json(path: Path, **fields: object) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
