"""The files of a trained image tower of the family `vision`."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipeline.checkpoints.writing import write_safetensors
from pipeline.train.finetune.tuning import WEIGHTS
from tasks.towers.backbone import VisionBackbone


@dataclass(frozen=True, slots=True)
class TowerFiles:
    """Writes a tower as its library reads it: transformers' with configuration and preprocessing, timm's by its names.

    Attributes:
        backbone: of the tower.
    """

    backbone: VisionBackbone

    def __call__(self, folder: Path, module: nn.Module, dtype: torch.dtype) -> None:
        """Write weights that are rounded to `dtype`; statistics of batch normalisation stay as they are."""
        for file in self.backbone.companions:
            shutil.copyfile(file, folder / file.name)
        if self.backbone.library == "transformers":
            from transformers import PreTrainedModel

            from pipeline.train.finetune.language import write_model

            assert isinstance(module, PreTrainedModel)
            write_model(folder, module, dtype)
            return
        trained = {name: p.detach().to(dtype) for name, p in module.named_parameters()}
        write_safetensors(folder / WEIGHTS, {n: t.cpu() for n, t in (module.state_dict() | trained).items()}, {})
