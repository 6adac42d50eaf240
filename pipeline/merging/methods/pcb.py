"""PCB-Merging: entries compete within and between task vectors, and the winners are averaged (Du et al., 2024).

Follows the function `PCB_merge` of the authors' code, whose scores differ from the paper's equations. Shape legend: T
experts that take part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import sum_of
from pipeline.merging.methods.base import (
    Entry,
    Experts,
    Method,
    Params,
    always,
    check_selection,
    number,
    selected,
)
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta

#: Share of the entries of a task vector that are raised to the smallest of the rest, or lowered to the largest.
_CLIPPED = 1e-4
#: Sums of scores that are smaller divide as this.
_LEAST_SCORES = 1e-12


@dataclass(frozen=True, slots=True)
class _Range:
    """The least and the largest of some numbers."""

    low: float
    high: float

    def normalised(self, entry: "Tensor") -> "Tensor":
        """Return entries, clipped to the range, as shares of it; 0 if it is empty."""
        size = self.high - self.low
        return (entry.clamp(self.low, self.high) - self.low) / size if size else entry * 0


def _prepare(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    deltas = selected(experts, weights)
    size = sum(tensor.numel() for tensor in deltas[0].values())
    magnitudes = [_magnitudes(delta, size) for delta in deltas]
    scores = [_winners(deltas, place, magnitudes[place], number(params, "keep")) for place in range(len(deltas))]

    def entry(experts: Experts, name: str) -> "Tensor":
        entries = [delta[name] for delta in selected(experts, weights)]
        total = sum_of(entries)
        shares = [
            s.normalised(_scores(e, total, m, len(entries)))
            for e, m, s in zip(entries, magnitudes, scores, strict=True)
        ]
        clipped = [e.sign() * e.abs().clamp(m.low, m.high) for e, m in zip(entries, magnitudes, strict=True)]
        top = sum_of(c * share for c, share in zip(clipped, shares, strict=True))
        return top / sum_of(shares).clamp(min=_LEAST_SCORES)

    return entry


def _scores(entry: "Tensor", total: "Tensor", magnitudes: _Range, experts: int) -> "Tensor":
    """Return exp(T n^2) tanh(tau_i sum_j tau_j), n the normalised magnitude, divided by exp(T), which may be huge."""
    within = ((magnitudes.normalised(entry.abs()).square() - 1) * experts).exp()
    return within * (entry * total).tanh()


def _magnitudes(delta: "Delta", size: int) -> _Range:
    """Return the magnitudes between which a task vector is clipped; places count from the smallest, as the authors'."""
    from pipeline.merging.kth_largest import kth_largest_magnitudes

    places = int(size * _CLIPPED), int(size * (1 - _CLIPPED) - 1)
    low, high = kth_largest_magnitudes(delta, [size - place for place in places])
    return _Range(low, high)


def _winners(deltas: "Sequence[Delta]", place: int, magnitudes: _Range, keep: float) -> _Range:
    """Return the range of the `keep` percent largest scores of one expert."""
    from pipeline.merging.lazy_tensors import Computed

    def score(name: str) -> "Tensor":
        entries = [delta[name] for delta in deltas]
        return _scores(entries[place], sum_of(entries), magnitudes, len(entries))

    size = sum(tensor.numel() for tensor in deltas[0].values())
    last = size - min(size - 1, int(size * (1 - keep / 100)))
    high, low = _kth_largest(Computed(deltas[0], score), (1, last), size)
    return _Range(low, high)


def _kth_largest(scores: "Mapping[str, Tensor]", ks: Sequence[int], size: int) -> list[float]:
    """Return the exact k-th largest of `size` numbers of any sign, for each k."""
    from pipeline.merging.kth_largest import kth_largest_magnitude, kth_largest_magnitudes
    from pipeline.merging.lazy_tensors import Computed

    positive = Computed(scores, lambda name: scores[name].clamp(min=0))
    negative = Computed(scores, lambda name: scores[name].clamp(max=0))
    found = kth_largest_magnitudes(positive, ks)
    return [v or -kth_largest_magnitude(negative, size - k + 1) for v, k in zip(found, ks, strict=True)]


PCB = Method(
    "the entries that win within and between task vectors, by their scores: PCB-Merging (Du et al., 2024)",
    _prepare,
    parameters=(
        Parameter(
            "keep",
            "percent of each task vector's entries that stay, those of the highest scores",
            10,
            low=0,
            high=100,
            open_low=True,
        ),
    ),
    check=check_selection("pcb"),
    entrywise=always,
)
