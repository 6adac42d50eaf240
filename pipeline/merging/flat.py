"""One flat tensor for all edited parameters; those that share a coefficient are adjacent."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.scaling import Coefficients
from tasks.base import LayerMap

#: Elements. Every parameter starts on a multiple of 128 bytes or more, as if it were allocated alone: kernels choose
#: their code by alignment. The gaps are 0 and stay 0.
_ALIGNMENT = 64
#: Elements that a fingerprint reads at most, evenly spaced: 3 ms on one core for a ViT-B/32; all would take 0.5 s.
_SAMPLES = 1 << 16


class Flat(dict[str, Tensor]):
    """A vector over all parameters: a mapping from names to views of `whole`."""

    def __init__(self, whole: Tensor, views: Mapping[str, Tensor]) -> None:
        """Take a flat tensor and its views: see `Arena.flat`."""
        super().__init__(views)
        self.whole = whole


#: A vector over all parameters, as it is kept on a device.
DeviceVector: TypeAlias = Flat | LowRankDelta


@dataclass(frozen=True, slots=True)
class Part:
    """Adjacent parameters of one group that share a coefficient.

    Attributes:
        group: index of the group.
        place: of the elements, gaps included.
        members: the parameters.
        coefficient: of the combined vector.
    """

    group: int
    place: slice
    members: tuple[str, ...]
    coefficient: float


@dataclass(frozen=True)
class Arena:
    """The place of each parameter in a flat tensor.

    Attributes:
        places: parameter name -> (offset, shape).
        groups: the part outside the blocks, then each block: the order of `scaling.Coefficients.all`.
        members: the parameters of each group.
        size: number of elements, gaps included.
    """

    places: Mapping[str, tuple[int, torch.Size]]
    groups: tuple[slice, ...]
    members: tuple[tuple[str, ...], ...]
    size: int

    @classmethod
    def plan(cls, shapes: Mapping[str, torch.Size], layer_map: LayerMap) -> "Arena":
        """Lay out parameters by block.

        Raises:
            ValueError: if the layer map names an unknown parameter.
        """
        strange = [name for name in layer_map.blocks if name not in shapes]
        if strange:
            raise ValueError(f"layer map: names parameters that the module does not have: {', '.join(strange[:3])}")
        places, groups, members, offset = {}, [], [], 0
        for group in (None, *range(layer_map.num_blocks)):
            start = offset
            members.append(tuple(n for n in shapes if layer_map.blocks.get(n) == group))
            for name in members[-1]:
                places[name] = (offset, shapes[name])
                offset += -(-prod(shapes[name]) // _ALIGNMENT) * _ALIGNMENT
            groups.append(slice(start, offset))
        return cls(places, tuple(groups), tuple(members), offset)

    def parts(self, lambdas: Coefficients) -> list[Part]:
        """Return the parameters by coefficient, in the order of their places: without components, one part a group."""
        if not lambdas.components:
            together = zip(self.groups, self.members, lambdas.all, strict=True)
            return [Part(index, *part) for index, part in enumerate(together)]
        return [part for index in range(len(self.groups)) for part in self._parts(index, lambdas)]

    def _parts(self, index: int, lambdas: Coefficients) -> Iterator[Part]:
        if not self.members[index]:
            return
        group, block = self.groups[index], index - 1 if index else None
        runs = [(value, tuple(run)) for value, run in groupby(self.members[index], lambda n: lambdas.of(block, n))]
        starts = [self.places[run[0]][0] for _, run in runs]
        for (value, run), start, stop in zip(runs, starts, [*starts[1:], group.stop], strict=True):
            yield Part(index, slice(start, stop), run, value)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return each parameter as a view of `flat`."""
        return {name: flat[self.span(name)].view(shape) for name, (_, shape) in self.places.items()}

    def span(self, name: str) -> slice:
        """Return the place of the elements of parameter `name`."""
        at, shape = self.places[name]
        return slice(at, at + prod(shape))

    def hold(self, vector: Mapping[str, Tensor], device: torch.device) -> DeviceVector:
        """Put a vector on the device: factors stay factors, everything else becomes flat."""
        if isinstance(vector, LowRankDelta):
            return vector.to(device)
        return vector if isinstance(vector, Flat) else self.flat(vector, device)

    def flat(self, tensors: Mapping[str, Tensor], device: torch.device) -> Flat:
        """Copy `tensors` into a new flat float32 vector on `device`."""
        whole = torch.zeros(self.size, device=device)
        views = self.views(whole)
        for name, view in views.items():
            view.copy_(tensors[name])
        return Flat(whole, views)

    def peaks(self, vector: DeviceVector) -> tuple[float, ...]:
        """Return the largest magnitude in each group; NaN if the group has one."""
        if isinstance(vector, Flat):
            return tuple(_largest([vector.whole[group]]) for group in self.groups)
        return tuple(_largest(vector[n] for n in names if n in vector.factors) for names in self.members)


def _largest(parts: Iterable[Tensor]) -> float:
    peaks = [torch.linalg.vector_norm(part, math.inf) for part in parts if part.numel()]
    return float(torch.stack(peaks).amax()) if peaks else 0.0


def fingerprint(flat: Tensor) -> str:
    """Return a 64-bit checksum of evenly spaced elements: 16 hexadecimal digits, the same on every device.

    It can miss a change of a few elements; a rebuild that leaves it unchanged is compared in full.
    """
    bits = flat.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()])
    sample = bits[:: max(1, flat.numel() // _SAMPLES) | 1].to(torch.int64)
    odd = torch.arange(1, 2 * sample.numel(), 2, device=flat.device, dtype=torch.int64)
    # Odd multipliers are invertible modulo 2**64, so that a change of any one sampled element changes the sum.
    checksum = int((sample * (odd * 0x9E3779B97F4A7C1)).sum().item())
    return f"{checksum & 0xFFFFFFFFFFFFFFFF:016x}"
