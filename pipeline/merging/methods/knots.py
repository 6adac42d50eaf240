"""KnOTS: TIES between the experts' coordinates in a basis that they share (Stoica et al., 2025).

Follows the authors' code. Shape legend: T experts that take part, O rows and I columns of a weight, K directions of the
basis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import aggregate
from pipeline.merging.methods.base import Entry, Experts, Method, Params, check_selection, number, used_experts
from pipeline.merging.methods.sparse import uniform
from pipeline.merging.methods.ties import KEEP, TIES
from pipeline.parameters import Parameter, resolve
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

#: Directions of smaller singular values are left out.
_LEAST = 1e-5


@dataclass(frozen=True, slots=True)
class _Aligned:
    """One parameter: its basis (O, K), None if it is no matrix; and each expert's coordinates, (K, I) of a matrix."""

    basis: "Tensor | None"
    coordinates: "Sequence[Tensor]"

    def restored(self, merged: "Tensor") -> "Tensor":
        """Return what has these coordinates."""
        return merged if self.basis is None else self.basis @ merged


def _prepare(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    used = used_experts(weights)
    aligned = {}
    for name in experts.deltas[0]:
        found = _align([experts.deltas[place][name] for place in used])
        if found.coordinates:
            aligned[name] = found
    merged = _merged(aligned, used, params)

    def entry(experts: Experts, name: str) -> "Tensor":
        if name in merged:
            return aligned[name].restored(merged[name])
        like = experts.deltas[used[0]][name]
        return like.new_zeros(like.shape)

    return entry


def _align(entries: "list[Tensor]") -> _Aligned:
    """Decompose the experts' matrices side by side, U S [V_1 ... V_T]; expert i has the coordinates S V_i in U.

    Other parameters keep their entries. What no expert changes has no coordinates, and so counts nowhere.
    """
    import torch

    if entries[0].ndim != 2:
        return _Aligned(None, entries if any(bool(entry.any()) for entry in entries) else [])
    left, values, right = torch.linalg.svd(torch.cat(entries, dim=1).double(), full_matrices=False)
    kept = int((values > _LEAST).sum())
    if not kept:
        return _Aligned(None, [])
    scaled = (values[:kept].unsqueeze(1) * right[:kept]).float()
    return _Aligned(left[:, :kept].float(), scaled.split(entries[0].shape[1], dim=1))


def _merged(aligned: Mapping[str, _Aligned], used: Sequence[int], params: Params) -> "Mapping[str, Tensor]":
    """Drop coordinates at random, and merge the rest by TIES over the vectors of all."""
    if not aligned:
        return {}
    drop, seed = number(params, "drop"), int(number(params, "seed"))

    def pruned(row: int, name: str) -> "Tensor":
        coordinates = aligned[name].coordinates[row]
        if not drop:
            return coordinates
        kept = uniform(seed, used[row], name, coordinates.shape) >= drop
        return coordinates * kept.to(coordinates.device, coordinates.dtype) / (1 - drop)

    vectors = [{name: pruned(row, name) for name in aligned} for row in range(len(used))]
    ties = resolve(TIES.parameters, {name: params[name] for name in ("keep", "aggregate")})
    return TIES.combine(Experts(vectors), (1,) * len(used), ties)


KNOTS = Method(
    "TIES between coordinates in a basis that the experts share: KnOTS (Stoica et al., 2025)",
    _prepare,
    parameters=(
        KEEP,
        Parameter("drop", "probability that DARE drops a coordinate first", 0.0, low=0, high=1, open_high=True),
        Parameter("seed", "of the random numbers", 0, "int", low=0),
        aggregate("mean"),
    ),
    check=check_selection("knots"),
)
