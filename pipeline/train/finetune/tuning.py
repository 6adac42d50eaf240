"""The tensors that are trained: an interface, and the weights themselves at rates that may differ by block."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.checkpoints.whole_models import WEIGHTS
from pipeline.checkpoints.writing import write_safetensors

#: Writes a module that holds rounded weights: (folder, module, their type).
WriteModule = Callable[[Path, nn.Module, torch.dtype], None]


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

    def __init__(self, module: nn.Module, factors: Mapping[str, float], write: WriteModule) -> None:
        """Select the parameters to train; those with rate 0 get no gradient.

        Args:
            module: with the parameters.
            factors: of the learning rate of each of them.
            write: the module.
        """
        self._module, self._write = module, write
        self.trained = {name: p for name, p in module.named_parameters() if factors[name] > 0}
        self.factors = {name: factors[name] for name in self.trained}
        for parameter in self.trained.values():
            parameter.requires_grad_()

    def weights(self) -> None:
        """Return None: the module's own weights are trained."""

    def settle(self) -> None:
        """Do nothing: the module has the current weights."""

    @torch.no_grad()
    def write(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the whole module."""
        for parameter in self._module.parameters():
            parameter.copy_(parameter.to(dtype))
        self._write(folder, self._module, dtype)


def write_tower(folder: Path, module: nn.Module, dtype: torch.dtype) -> None:
    """Write an image tower under the names of open_clip."""
    whole = {f"visual.{name}": p.detach().to(dtype).cpu() for name, p in module.named_parameters()}
    write_safetensors(folder / WEIGHTS, whole, {})
