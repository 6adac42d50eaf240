"""LoRA on the linear layers of an image tower or a language model, written as peft writes it.

Every step forms the weights as W + scale * B A from a W that never changes. peft does so for plain linear layers; for
`nn.MultiheadAttention` it adds B A to the stored W before each forward pass and subtracts it afterwards, so that
rounding moves W a little with every step, and a resumed run differs from an undisturbed one. Hence the factors are
trained here; files and their names are peft's.

Shape legend: M outputs and N inputs of a layer, R the rank.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.checkpoints.writing import write_safetensors
from pipeline.recipe import ParamValue
from tasks.base import Backbone, LayerMap

CONFIG, FACTORS = "adapter_config.json", "adapter_model.safetensors"
_PEFT = "base_model.model."
#: Up to this version, peft adds the change of an attention's output twice (its pull request 3774). B is written halved,
#: with this version in the configuration, so that every reader gets the same weights.
_TWICE_IN, _TWICE = "0.21.2", ".base_layer.out_proj.lora_B.weight"
#: The class is not imported: transformers takes seconds, and image towers do not need it.
_CONV1D = "Conv1D"


@dataclass(frozen=True, slots=True)
class Target:
    """A weight that gets factors.

    Attributes:
        weight: its name among the module's parameters.
        module: name of the module that peft wraps.
        layer: name of the layer under which peft stores the factors.
        turned: whether the weight is (N, M): transformers' Conv1D, of GPT-2.
    """

    weight: str
    module: str
    layer: str
    turned: bool = False


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What an adapter's configuration says of its model, besides the factors.

    Attributes:
        layer_map: the blocks whose linear layers get factors; None for the backbone's own.
        base: the model that the adapter changes; None if it is not named.
        task_type: peft's name of the kind of model.
    """

    layer_map: LayerMap | None = None
    base: str | None = None
    task_type: str | None = None


def targets(module: nn.Module, layer_map: LayerMap) -> list[Target]:
    """Return every linear layer of the blocks; attention has two: the stacked query, key and value, and the output.

    Raises:
        ValueError: if the blocks have none.
    """
    found: list[Target] = []
    attentions = tuple(n for n, m in module.named_modules() if isinstance(m, nn.MultiheadAttention))
    for name, part in module.named_modules():
        if isinstance(part, nn.MultiheadAttention) and f"{name}.in_proj_weight" in layer_map.blocks:
            found.append(Target(f"{name}.in_proj_weight", name, name))
            found.append(Target(f"{name}.out_proj.weight", name, f"{name}.base_layer.out_proj"))
        inside = name.startswith(tuple(f"{a}." for a in attentions))
        if isinstance(part, nn.Linear) and f"{name}.weight" in layer_map.blocks and not inside:
            found.append(Target(f"{name}.weight", name, name))
        if type(part).__name__ == _CONV1D and f"{name}.weight" in layer_map.blocks:
            found.append(Target(f"{name}.weight", name, name, turned=True))
    if not found:
        raise ValueError("lora: the blocks of this model have no linear layers")
    return found


def check_rank(backbone: Backbone, rank: ParamValue, layer_map: LayerMap | None = None) -> int:
    """Return the rank as a whole number.

    Args:
        backbone: with the targets.
        rank: to check.
        layer_map: see `AdapterSettings`.

    Raises:
        ValueError: if it is larger than the smallest side of a target's weight.
    """
    named = dict(backbone.module.named_parameters())
    sides = {min(named[t.weight].shape): t.weight for t in targets(backbone.module, layer_map or backbone.layer_map)}
    smallest = min(sides)
    assert isinstance(rank, int)
    if rank > smallest:
        raise ValueError(f"rank: must be in [1, {smallest}], the smaller side of {sides[smallest]}, got {rank}")
    return rank


class LoraTuning:
    """Train factors A (R, N) and B (M, R) for every target; all other parameters are frozen."""

    def __init__(
        self, backbone: Backbone, rank: int, scale: float, seed: int, settings: AdapterSettings | None = None
    ) -> None:
        """Create the factors: A as peft draws it, B zero, so that training starts at the base.

        Args:
            backbone: its module holds W, which only `settle` overwrites.
            rank: R.
            scale: alpha / R.
            seed: of A.
            settings: of the adapter; by default those of an image tower.
        """
        self._settings = settings or AdapterSettings()
        self._module, self._rank, self._scale = backbone.module, rank, scale
        named = dict(backbone.module.named_parameters())
        self._targets = targets(backbone.module, self._settings.layer_map or backbone.layer_map)
        self._base = {t.weight: named[t.weight].detach().clone() for t in self._targets}
        generator = torch.Generator().manual_seed(seed)
        self.trained: dict[str, nn.Parameter] = {}
        for target in self._targets:
            rows, columns = named[target.weight].shape[::-1] if target.turned else named[target.weight].shape
            a_RN = torch.empty(rank, columns)
            nn.init.kaiming_uniform_(a_RN, a=math.sqrt(5), generator=generator)
            for key, factor in (("A", a_RN), ("B", torch.zeros(rows, rank))):
                self.trained[f"{target.layer}.lora_{key}.weight"] = nn.Parameter(factor.to(backbone.device))
        self.factors = dict.fromkeys(self.trained, 1.0)

    def weights(self) -> Mapping[str, Tensor]:
        """Return W + scale * B A of every target, with gradients towards the factors."""
        return {t.weight: self._base[t.weight] + self._scale * self._product(t) for t in self._targets}

    def _product(self, target: Target) -> Tensor:
        b_MR, a_RN = (self.trained[f"{target.layer}.lora_{key}.weight"] for key in "BA")
        product_MN = b_MR @ a_RN
        return product_MN.T if target.turned else product_MN

    @torch.no_grad()
    def settle(self) -> None:
        """Write the current weights into the module."""
        named = dict(self._module.named_parameters())
        for name, weight in self.weights().items():
            named[name].copy_(weight)

    @torch.no_grad()
    def write(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the two files of a peft adapter, and round the factors to what was written."""
        state = {name: (factor * _share(name)).to(dtype) for name, factor in self.trained.items()}
        for name, factor in self.trained.items():
            factor.copy_(state[name].float() / _share(name))
        self._write_config(folder)
        write_safetensors(folder / FACTORS, {f"{_PEFT}{name}": t.cpu() for name, t in state.items()}, {})

    def _write_config(self, folder: Path) -> None:
        from peft import LoraConfig  # takes seconds to import

        modules = sorted({target.module for target in self._targets})
        alpha: Any = self._scale * self._rank  # declared as int, but used as a float
        config = LoraConfig(
            r=self._rank,
            lora_alpha=alpha,
            target_modules=modules,
            inference_mode=True,
            fan_in_fan_out=any(target.turned for target in self._targets),
            base_model_name_or_path=self._settings.base,
            task_type=self._settings.task_type,
        )
        # Not save_pretrained: it writes the modules in the order of a set, which differs from process to process.
        known: dict[str, Any] = config.to_dict()  # type: ignore[no-untyped-call]
        values = {k: sorted(v) if isinstance(v, set) else v for k, v in known.items()}
        values["peft_version"] = _TWICE_IN
        (folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _share(name: str) -> float:
    """Return the share of a factor that is written: see `_TWICE_IN`."""
    return 0.5 if name.endswith(_TWICE) else 1.0
