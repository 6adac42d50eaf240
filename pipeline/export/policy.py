"""Export a candidate of a language model or an image tower: a LoRA adapter if it merges policies that are adapters."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.checkpoints.coverage import Part, edited_parts, present
from pipeline.checkpoints.whole_models import write_transformers, write_vision_tower
from pipeline.loading.model import LoadedModel
from pipeline.loading.rewards import as_policy
from pipeline.merging.edited_parameters import EditedParameters
from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.methods import METHODS
from pipeline.merging.resident import ResidentModel
from pipeline.merging.resident_low_rank import Candidates
from pipeline.recipe import Recipe
from tasks.base import Backbone
from tasks.language.backbone import LanguageBackbone
from tasks.language.vllm_engine import write_adapter
from tasks.towers.backbone import VisionBackbone

CPU = torch.device("cpu")


def write_policy(
    folder: Path, model: LoadedModel, deltas: Mapping[str, Mapping[str, Tensor]], recipe: Recipe
) -> tuple[str, list[Part]]:
    """Write a candidate with its tokenizer.

    Args:
        folder: an existing folder.
        model: the base, on the CPU.
        deltas: expert -> task vector, in the order of the recipe's weights.
        recipe: of the candidate.

    Returns:
        The library that reads it: "peft", or "transformers" for a whole model; and what became of every parameter.
    """
    backbone = as_policy(model.backbone)
    backbone.tokenizer.save_pretrained(str(folder))
    low = {name: delta for name, delta in deltas.items() if isinstance(delta, LowRankDelta)}
    edited = EditedParameters(backbone, METHODS[recipe.method].shares is not None and not recipe.then)
    for delta in deltas.values():
        edited.add(delta)
    if edited.low_rank and _plain(backbone.module, low):
        _, factors = Candidates(backbone.module, backbone.layer_map, low, CPU).factors(recipe)
        if factors:
            pairs = {name: (factor.b, factor.a) for name, factor in factors.items()}
            write_adapter(folder, pairs, model.base.source)
            return "peft", _coverage(backbone, edited.names)
    base = model.base.tensors
    resident = ResidentModel(backbone.module, backbone.layer_map, base, deltas, CPU, backbone.dtype)
    resident.sizes = edited.sizes
    resident.materialise(recipe)
    assert isinstance(backbone.module, PreTrainedModel)
    write_transformers(folder, backbone.module)
    return "transformers", _coverage(backbone, edited.names)


def write_language_model(folder: Path, backbone: Backbone) -> list[Part]:
    """Write a language model that holds a candidate, and its tokenizer, into an existing folder.

    Returns:
        What became of every parameter.
    """
    assert isinstance(backbone, LanguageBackbone)
    assert isinstance(backbone.module, PreTrainedModel)
    backbone.tokenizer.save_pretrained(str(folder))
    write_transformers(folder, backbone.module)
    return _coverage(backbone, dict(backbone.module.named_parameters()))


def write_image_tower(folder: Path, backbone: Backbone) -> tuple[str, list[Part]]:
    """Write an image tower that holds a candidate, and its preprocessing, into an existing folder.

    Returns:
        The library that reads it, transformers or timm; and what became of every parameter.
    """
    assert isinstance(backbone, VisionBackbone)
    write_vision_tower(backbone, folder, backbone.module)
    return backbone.library, _coverage(backbone, dict(backbone.module.named_parameters()))


def _coverage(backbone: Backbone, names: Collection[str]) -> list[Part]:
    """Count the parameters that policies change, and the others."""
    parameters = dict(backbone.module.named_parameters())
    every = dict(backbone.module.named_parameters(remove_duplicate=False))
    tied = tuple(name for name in every if name not in parameters)
    return present(
        [
            *edited_parts({n: p for n, p in parameters.items() if n in names}, backbone.layer_map.blocks),
            Part.of(
                "changed by no policy, so they are the base's", {n: p for n, p in parameters.items() if n not in names}
            ),
            Part("other names of tied tensors, which count once", len(tied), 0, tied),
        ]
    )


def _plain(module: nn.Module, deltas: Mapping[str, LowRankDelta]) -> bool:
    """Whether every edited weight is (outputs, inputs), as `write_adapter` needs; GPT-2's are not."""
    names = {name for delta in deltas.values() for name in delta.factors}
    return all(isinstance(module.get_submodule(name.rpartition(".")[0]), nn.Linear) for name in names)
