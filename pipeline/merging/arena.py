"""One flat tensor for all edited parameters, with those of one coefficient side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from tasks.base import LayerMap

#: Elements. Every parameter starts on a multiple of 128 bytes or more, as if it had been allocated alone: kernels pick
#: their code by alignment. The gaps are 0 and stay 0.
_ALIGNMENT = 64
#: Elements that a fingerprint reads at most, evenly spaced: 3 ms of one core for a ViT-B/32, where all cost 0.5 s.
_SAMPLES = 1 << 16


@dataclass(frozen=True)
class Arena:
    """Where each parameter sits in a flat tensor.

    Attributes:
        places: parameter name -> (offset, shape).
        groups: what lies outside the blocks, then each block: the order of `scaling.Coefficients.all`.
        size: elements in all, gaps included.
    """

    places: Mapping[str, tuple[int, torch.Size]]
    groups: tuple[slice, ...]
    size: int

    @classmethod
    def plan(cls, shapes: Mapping[str, torch.Size], layer_map: LayerMap) -> "Arena":
        """Lay out parameters by block.

        Raises:
            ValueError: the layer map names a parameter that is not there.
        """
        strange = [name for name in layer_map.blocks if name not in shapes]
        if strange:
            raise ValueError(f"layer map: names parameters that the module does not have: {', '.join(strange[:3])}")
        places, groups, offset = {}, [], 0
        for group in (None, *range(layer_map.num_blocks)):
            start = offset
            for name in (n for n in shapes if layer_map.blocks.get(n) == group):
                places[name] = (offset, shapes[name])
                offset += -(-prod(shapes[name]) // _ALIGNMENT) * _ALIGNMENT
            groups.append(slice(start, offset))
        return cls(places, tuple(groups), offset)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Each parameter as a view of `flat`."""
        return {name: flat[at : at + prod(shape)].view(shape) for name, (at, shape) in self.places.items()}

    def fill(self, tensors: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """A new flat float32 tensor on `device` with the values of `tensors`."""
        flat = torch.zeros(self.size, device=device)
        for name, view in self.views(flat).items():
            view.copy_(tensors[name])
        return flat


def fingerprint(flat: Tensor) -> str:
    """A 64-bit checksum of evenly spaced elements: 16 hexadecimal digits, the same on every device.

    A change of a few elements can escape it; a rebuild for which it does not change is compared in full.
    """
    bits = flat.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()])
    sample = bits[:: max(1, flat.numel() // _SAMPLES) | 1].to(torch.int64)
    odd = torch.arange(1, 2 * sample.numel(), 2, device=flat.device, dtype=torch.int64)
    # Odd multipliers are invertible modulo 2**64, so that a change of any one sampled element changes the sum.
    checksum = int((sample * (odd * 0x9E3779B97F4A7C1)).sum().item())
    return f"{checksum & 0xFFFFFFFFFFFFFFFF:016x}"
