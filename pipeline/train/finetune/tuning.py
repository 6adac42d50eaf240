"""The tensors that are trained: an interface, and the weights themselves at rates that may differ by block."""

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
    """Trained tensors, and how they become the weights of the module."""

    @property
    def trained(self) -> Mapping[str, nn.Parameter]:
        """Tensors that the optimiser updates, by their names in checkpoints."""
        ...

    @property
    def factors(self) -> Mapping[str, float]:
        """Factor of the learning rate of each trained tensor."""
        ...

    def weights(self) -> Mapping[str, Tensor] | None:
        """Return weights by the module's names, with gradients towards `trained`; None if they are the module's own."""
        ...

    def settle(self) -> None:
        """Write the current weights into the module, for evaluation."""
        ...

    def write(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the result in `dtype`, and round the trained tensors to it, so that the written model is scored.

        Raises:
            ValueError: if it cannot be written.
        """
        ...


class DenseTuning:
    """Train the module's own parameters, except the frozen ones."""

    def __init__(self, backbone: Backbone, block_rates: tuple[float, ...]) -> None:
        """Select the parameters to train; those with rate 0 get no gradient."""
        self._module = backbone.module
        named = dict(backbone.module.named_parameters())
        factors = rate_factors(list(named), backbone.layer_map, block_rates)
        self.trained = {name: p for name, p in named.items() if factors[name] > 0}
        self.factors = {name: factors[name] for name in self.trained}
        for parameter in self.trained.values():
            parameter.requires_grad_()

    def weights(self) -> None:
        """Return None: the module's own weights are trained."""

    def settle(self) -> None:
        """Do nothing: the module has the current weights."""

    @torch.no_grad()
    def write(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the image tower under the names of open_clip."""
        state = {name: p.to(dtype) for name, p in self._module.named_parameters()}
        for name, parameter in self._module.named_parameters():
            parameter.copy_(state[name])
        whole = {f"visual.{name}": tensor.cpu() for name, tensor in state.items()}
        write_safetensors(folder / WEIGHTS, whole, {})
