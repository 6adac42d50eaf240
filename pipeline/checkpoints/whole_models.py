"""Writes models of transformers and image towers as their libraries read them."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from pipeline.checkpoints.writing import write_safetensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.towers.backbone import VisionBackbone

#: The file of a model that is not sharded.
WEIGHTS = "model.safetensors"


def write_transformers(folder: Path, module: "PreTrainedModel", dtype: torch.dtype | None = None) -> None:
    """Write weights and configuration into an existing folder.

    Args:
        folder: the folder.
        module: the model, which stays as it is.
        dtype: that weights are rounded to; None writes them as they are.
    """
    from tasks.language.models import save_model

    held = [(parameter, parameter.data) for parameter in module.parameters()]
    try:
        for parameter, data in held:  # not module.to, which would round the angles of rotary positions
            parameter.data = data.to(dtype or data.dtype)
        save_model(module, folder)
    finally:
        for parameter, data in held:
            parameter.data = data


def write_vision_tower(
    backbone: "VisionBackbone", folder: Path, module: nn.Module, dtype: torch.dtype | None = None
) -> None:
    """Write a tower of the family `vision`: transformers' with configuration and preprocessing, timm's by its names.

    Args:
        backbone: of the tower.
        folder: an existing folder.
        module: its weights.
        dtype: that weights are rounded to, but for the statistics of batch normalisation; None writes them as they are.
    """
    for file in backbone.companions:
        shutil.copyfile(file, folder / file.name)
    if backbone.library == "transformers":
        from transformers import PreTrainedModel

        assert isinstance(module, PreTrainedModel)
        write_transformers(folder, module, dtype)
        return
    weights = {name: p.detach().to(dtype or p.dtype) for name, p in module.named_parameters()}
    write_safetensors(folder / WEIGHTS, {n: t.cpu() for n, t in (module.state_dict() | weights).items()}, {})
