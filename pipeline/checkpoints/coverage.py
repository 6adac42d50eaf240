"""What became of every tensor of a model that is written: edited, averaged, copied or left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tasks.tensors import first_names

AVERAGED = "averaged, as statistics of batches"


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors with which the same was done.

    Attributes:
        what: was done with them, and why.
        tensors: how many there are.
        parameters: the number of their entries.
        names: of all of them; () for edited ones, which are all that no other part names.
    """

    what: str
    tensors: int
    parameters: int
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, what: str, state: Mapping[str, Tensor], named: bool = True) -> "Part":
        """Count the tensors of `state`."""
        return cls(what, len(state), sum(t.numel() for t in state.values()), tuple(state) if named else ())

    def __str__(self) -> str:
        """Return the part in one line, with the first names."""
        names = f" ({first_names(self.names)})" if self.names else ""
        return f"{self.what}: {self.tensors} tensors, {self.parameters:,} parameters{names}"

    def to_json(self) -> dict[str, Any]:
        """Return the part with all its names."""
        counts: dict[str, Any] = {"tensors": self.tensors, "parameters": self.parameters}
        return {"what": self.what, **counts, **({"names": list(self.names)} if self.names else {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Part":
        """Make the part that `to_json` wrote."""
        return cls(data["what"], data["tensors"], data["parameters"], tuple(data.get("names", ())))


def edited_parts(state: Mapping[str, Tensor], blocks: Mapping[str, int]) -> list[Part]:
    """Return the parts of edited tensors: those in the blocks, and those outside."""
    inside = {name: t for name, t in state.items() if name in blocks}
    outside = {name: t for name, t in state.items() if name not in blocks}
    return [
        Part.of("scaled, in the blocks", inside, named=False),
        Part.of("scaled, outside the blocks", outside, named=False),
    ]


def present(parts: Sequence[Part]) -> list[Part]:
    """Leave out parts without tensors."""
    return [part for part in parts if part.tensors]


def with_measured(parts: Sequence[Part], measured: Mapping[str, Tensor], images: int) -> list[Part]:
    """Move measured statistics out of the parts that they were in."""
    found = []
    for part in parts:
        left = tuple(name for name in part.names if name not in measured)
        gone = sum(measured[name].numel() for name in part.names if name in measured)
        found.append(Part(part.what, part.tensors - len(part.names) + len(left), part.parameters - gone, left))
    return present([*found, Part.of(f"measured on {images} images, as statistics of batches", measured)])
