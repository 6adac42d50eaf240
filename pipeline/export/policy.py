"""A language model's candidate as files: a LoRA adapter where its policies are such, else a whole model."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.loading.model import LoadedModel
from pipeline.loading.rewards import as_policy
from pipeline.merging.edited_parameters import Edited
from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.resident import ResidentModel
from pipeline.merging.resident_low_rank import Candidates
from pipeline.recipe import Recipe
from tasks.language.vllm_engine import write_adapter

CPU = torch.device("cpu")


def write_policy(folder: Path, model: LoadedModel, deltas: Mapping[str, Mapping[str, Tensor]], recipe: Recipe) -> str:
    """Write a candidate with its tokenizer.

    Args:
        folder: there already.
        model: the base, on the CPU.
        deltas: expert -> task vector, in the order of the recipe's weights.
        recipe: what to write.

    Returns:
        the library that reads it: "peft", or "transformers" for a whole model.
    """
    backbone = as_policy(model.backbone)
    backbone.tokenizer.save_pretrained(str(folder))
    low = {name: delta for name, delta in deltas.items() if isinstance(delta, LowRankDelta)}
    edited = Edited(backbone, [recipe.method])
    for delta in deltas.values():
        edited.add(delta)
    if edited.apart and _plain(backbone.module, low):
        _, factors = Candidates(backbone.module, backbone.layer_map, low, CPU).factors(recipe)
        if factors:
            pairs = {name: (factor.b, factor.a) for name, factor in factors.items()}
            write_adapter(folder, pairs, model.base.source)
            return "peft"
    base = model.base.tensors
    resident = ResidentModel(backbone.module, backbone.layer_map, base, deltas, CPU, backbone.dtype)
    resident.sizes = edited.sizes
    resident.materialise(recipe)
    assert isinstance(backbone.module, PreTrainedModel)
    backbone.module.save_pretrained(str(folder))
    return "transformers"


def _plain(module: nn.Module, deltas: Mapping[str, LowRankDelta]) -> bool:
    """Whether every edited weight is (outputs, inputs), as adapters are written here; GPT-2's are not."""
    names = {name for delta in deltas.values() for name in delta.factors}
    return all(isinstance(module.get_submodule(name.rpartition(".")[0]), nn.Linear) for name in names)
