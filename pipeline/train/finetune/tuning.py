"""What is trained: the weights themselves, at a rate that may differ from block to block."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.checkpoints.writing import write_safetensors
from pipeline.train.finetune.rates import rate_factors
from tasks.base import Backbone

WEIGHTS = "model.safetensors"


class Tuning(Protocol):
    """Trained tensors, and how they become the weights that the module computes with."""

    @property
    def trained(self) -> Mapping[str, nn.Parameter]:
        """What the optimiser moves; their names are those of checkpoints."""
        ...

    @property
    def factors(self) -> Mapping[str, float]:
        """Factor of the learning rate of each."""
        ...

    def weights(self) -> Mapping[str, Tensor] | None:
        """Weights by the module's names, with gradients towards `trained`; None where the module's own are trained."""
        ...

    def settle(self) -> None:
        """Make the module itself compute with what was trained so far, for evaluation."""
        ...

    def write(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the result in `dtype`, rounding what was trained to it first, so that what is scored is what is kept.

        Raises:
            ValueError: it cannot be written.
        """
        ...


class DenseTuning:
    """The module's own parameters, less the frozen ones."""

    def __init__(self, backbone: Backbone, block_rates: tuple[float, ...]) -> None:
        """Choose what is trained; what has rate 0 gets no gradient."""
        self._module = backbone.module
        named = dict(backbone.module.named_parameters())
        factors = rate_factors(list(named), backbone.layer_map, block_rates)
        self.trained = {name: p for name, p in named.items() if factors[name] > 0}
        self.factors = {name: factors[name] for name in self.trained}
        for parameter in self.trained.values():
            parameter.requires_grad_()

    def weights(self) -> None:
        """None: the module's own weights are trained."""

    def settle(self) -> None:
        """Nothing to do."""

    @torch.no_grad()
    def write(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the image tower under open_clip's names."""
        state = {name: p.to(dtype) for name, p in self._module.named_parameters()}
        for name, parameter in self._module.named_parameters():
            parameter.copy_(state[name])
        whole = {f"visual.{name}": tensor.cpu() for name, tensor in state.items()}
        write_safetensors(folder / WEIGHTS, whole, {})
