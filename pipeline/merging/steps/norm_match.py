"""Give the combined vector the norm that the experts' task vectors have on average."""

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.base import Params
from pipeline.merging.steps.base import Apply, Merged, Place, Step
from pipeline.parameters import Parameter
from pipeline.recipe import canonical_number

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta


def _prepare(merged: Merged, params: Params) -> Apply:
    """Compute mean_i ||tau_i|| / ||combined|| (L2) of each group, rounded to a recipe's seven digits.

    The sums of squares are float64. Machines that add in another order, or other pieces, then agree in all digits that
    are kept.
    """
    by = str(params["by"])
    own, *others = (_norms(vector, merged, by) for vector in (merged.combined, *merged.experts))
    factors = {
        name: float(canonical_number(math.fsum(norms[name] for norms in others) / len(others) / norm)) if norm else 1.0
        for name, norm in own.items()
    }

    def apply(experts: "Sequence[Delta]", key: str, place: Place, entry: "Tensor") -> "Tensor":
        factor = factors[_group(place, by)]
        return entry if factor == 1 else entry * factor

    return apply


def _group(place: Place, by: str) -> Hashable:
    return {"parameter": place.parameter, "block": place.block, "whole": ""}[by]


def _norms(vector: "Delta", merged: Merged, by: str) -> dict[Hashable, float]:
    from pipeline.merging.parameter_pieces import split

    squares: dict[Hashable, list[float]] = {}
    for key, entry in vector.items():
        wide = (piece.double() for piece in split(entry).values())
        squares.setdefault(_group(merged.place(key), by), []).extend(float(piece @ piece) for piece in wide)
    return {name: math.sqrt(math.fsum(square)) for name, square in squares.items()}


NORM_MATCH = Step(
    "scaled to the mean L2 norm of the experts' task vectors: of each parameter or block, or of the whole vector",
    _prepare,
    parameters=(
        Parameter(
            "by",
            "what has the norm: each parameter, each block (and all outside the blocks), or the whole vector",
            "block",
            "choice",
            choices=("parameter", "block", "whole"),
        ),
    ),
    entrywise=True,
)
