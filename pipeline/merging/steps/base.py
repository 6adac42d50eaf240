"""The interface of steps after a merge. It does not import torch: specs read names and parameters of steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipeline.merging.methods.base import Params
from pipeline.parameters import Parameter

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta


@dataclass(frozen=True, slots=True)
class Place:
    """Where entries belong: a parameter, and its block; None is outside the blocks."""

    parameter: str
    block: int | None


@dataclass(frozen=True, slots=True)
class Merged:
    """What a step follows. A step must not write to it.

    Attributes:
        combined: the combined vector so far: float32 by key, which is a parameter's name or that of a piece of one. An
            entry may be computed each time it is read.
        experts: the task vectors of the experts that take part, with the same keys.
        place: where the entries of a key belong.
    """

    combined: "Delta"
    experts: "Sequence[Delta]"
    place: Callable[[str], Place]


#: (task vectors of the experts that take part, key, its place, entry of the combined vector) -> the new entry: the one
#: that was given, or a new tensor. Of the task vectors it reads that key only.
Apply: TypeAlias = "Callable[[Sequence[Delta], str, Place, Tensor], Tensor]"


@dataclass(frozen=True, slots=True)
class Step:
    """A way to change a combined vector. It needs the experts' task vectors, and no data.

    Attributes:
        doc: one line for users, with its source.
        prepare: (what it follows, every declared parameter) -> what changes one entry. What takes the whole vector,
            such as a norm, is computed once, here.
        parameters: parameters that the step takes.
        entrywise: whether a number of the result depends on the same number of its inputs only, besides what is
            prepared: parameters may then be cut into pieces.
    """

    doc: str
    prepare: Callable[[Merged, Params], Apply]
    parameters: tuple[Parameter, ...] = ()
    entrywise: bool = False
