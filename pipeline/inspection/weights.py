"""What experts do to the weights: norms, angles, signs and subspaces of their task vectors, by block.

Shape legend: E experts, G groups (the part outside the blocks, then each block), n entries of a piece.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.checkpoints.pieces import read_piece
from pipeline.inspection.subspaces import overlaps, subspace
from pipeline.inspection.vectors import OpenedExperts, open_experts
from pipeline.loading.expert_checks import NO_CHANGE
from pipeline.loading.missing import checkpoint_lines, report_missing
from pipeline.loading.model import Report
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.low_rank import LowRank, LowRankDelta
from pipeline.merging.parameter_pieces import places_of
from pipeline.spec.run import RunSpec

Array = npt.NDArray[np.float64]
#: Entries of each expert that are summed at a time.
_PART = 1 << 15


@dataclass(frozen=True, slots=True)
class Weights:
    """The measured task vectors.

    Attributes:
        experts: names (E).
        rank: k, the number of leading singular directions that are compared.
        base: (G,) norm of theta0.
        products: (G, E, E) inner products of task vectors; squared norms on the diagonal.
        nonzero: (G, E, E) number of entries that both change.
        conflicts: (G, E, E) number of those that they move in opposite directions.
        overlap: (G, E, E) mean overlap of leading singular subspaces over the group's matrices; NaN if it has none,
            as outside the blocks, or if a task vector is 0 there.
        chance: (G,) what overlap random subspaces would have on average; NaN as above.
        energy: (G, E) mean share of a matrix's squared norm in its leading subspace; NaN as above.
    """

    experts: tuple[str, ...]
    rank: int
    base: Array
    products: Array
    nonzero: Array
    conflicts: Array
    overlap: Array
    chance: Array
    energy: Array

    @property
    def num_blocks(self) -> int:
        """The number of residual blocks."""
        return len(self.base) - 1

    def norm(self, groups: slice = slice(None)) -> Array:
        """Return the norms of the task vectors over all parameters of the groups (E)."""
        found: Array = np.sqrt(np.diagonal(self.products[groups].sum(axis=0)))
        return found

    def relative(self, groups: slice = slice(None)) -> Array:
        """Return ||task vector|| / ||theta0|| over all parameters of the groups (E); NaN if theta0 is 0."""
        norms = self.norm(groups)
        return _ratio(norms, np.full_like(norms, np.linalg.norm(self.base[groups])))

    def cosines(self, groups: slice = slice(None)) -> Array:
        """Return cosines of the task vectors over the groups (E, E); NaN where one is 0."""
        norms = self.norm(groups)
        return _ratio(self.products[groups].sum(axis=0), np.outer(norms, norms))

    def sign_conflicts(self, groups: slice = slice(None)) -> Array:
        """Return the share of entries, of those that both change, with opposite signs (E, E); NaN if there are none."""
        return _ratio(self.conflicts[groups].sum(axis=0), self.nonzero[groups].sum(axis=0))

    def overlaps(self, groups: slice = slice(None)) -> Array:
        """Return the mean overlap of leading singular subspaces over the groups (E, E); NaN if there is none."""
        return _mean(self.overlap[groups])

    def mean_chance(self, groups: slice = slice(None)) -> float:
        """Return the mean overlap of random subspaces over the groups."""
        return float(_mean(self.chance[groups]))

    def mean_energy(self, groups: slice = slice(None)) -> Array:
        """Return the mean share of a matrix's squared norm in its leading subspace over the groups (E)."""
        return _mean(self.energy[groups])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of experts."""
        return [(a, b) for a in range(len(self.experts)) for b in range(a + 1, len(self.experts))]


def _ratio(numerator: Array, denominator: Array) -> Array:
    found: Array = np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
    return found


def _mean(values: Array) -> Array:
    """Return the mean over the first axis of what is not NaN; NaN if nothing is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


@dataclass(frozen=True, slots=True)
class _Matrix:
    """One weight matrix: overlap (E, E), chance (), energy (E,), as of `Weights`."""

    overlap: Array
    chance: Array
    energy: Array


def inspect_weights(spec: RunSpec, rank: int, report: Report) -> Weights:
    """Find, open and measure the experts of a spec.

    Raises:
        ValueError: if a checkpoint is missing or does not fit the architecture, or as `measure_weights`.
    """
    sources = SpecSources(spec, spec.experts)
    sources.fetch_urls(report)
    report_missing(checkpoint_lines(sources, sources.missing()))
    return measure_weights(open_experts(spec, sources), rank, report)


def measure_weights(opened: OpenedExperts, rank: int, report: Report) -> Weights:
    """Measure task vectors one parameter after another, in pieces; one matrix of each expert is in memory at most.

    Raises:
        ValueError: if a task vector is 0 everywhere, or not finite; the expert is named.
    """
    names, count = tuple(opened.experts), 1 + opened.layer_map.num_blocks
    squares, sums = np.zeros(count), np.zeros((3, count, len(names), len(names)))
    blank = _Matrix(np.full((len(names),) * 2, np.nan), np.full((), np.nan), np.full(len(names), np.nan))
    found = [[blank] for _ in range(count)]
    for done, name in enumerate(opened.shapes):
        report("measuring task vectors", done, len(opened.shapes))
        group = opened.layer_map.blocks.get(name, -1) + 1
        for base_n, deltas_En in _pieces(opened, name):
            squares[group] += float(base_n.double().square().sum())
            sums[:, group] += (summed := _summed(deltas_En))
            _check_finite(names, name, summed[0])
        if group and (matrix := _matrix(opened, name, rank)):
            found[group].append(matrix)
    _check_changed(names, sums[0].sum(axis=0))
    overlap = np.stack([_mean(np.stack([m.overlap for m in group])) for group in found])
    chance = np.stack([_mean(np.stack([m.chance for m in group])) for group in found])
    energy = np.stack([_mean(np.stack([m.energy for m in group])) for group in found])
    return Weights(names, rank, np.sqrt(squares), sums[0], sums[1], sums[2], overlap, chance, energy)


def _pieces(opened: OpenedExperts, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield theta0 (n,) and the task vectors (E, n) of each piece of a parameter, in float32."""
    dense = {e: s[name].reshape(-1) for e, s in opened.experts.items() if isinstance(s, LowRankDelta)}
    for place in places_of(opened.shapes[name].numel()):
        base_n = read_piece(opened.base, name, place).float()
        rows = [
            dense[expert][place] if expert in dense else read_piece(state, name, place).float() - base_n
            for expert, state in opened.experts.items()
        ]
        yield base_n, torch.stack(rows)


def _summed(deltas_En: Tensor) -> Array:
    """Return inner products, and numbers of entries that both change, and that both change in opposite directions.

    In small parts: the system gives larger temporary memory page by page, which took four times as long as the sums.
    """
    found = torch.zeros(3, len(deltas_En), len(deltas_En), dtype=torch.float64)
    for start in range(0, deltas_En.shape[1], _PART):
        part_En = deltas_En[:, start : start + _PART]
        signs_En, wide_En = part_En.sign(), part_En.double()
        changed_En = signs_En.abs()
        both, agreeing = changed_En @ changed_En.T, signs_En @ signs_En.T  # whole numbers below 2**24: exact
        found += torch.stack([wide_En @ wide_En.T, both.double(), (both - agreeing).double() / 2])
    summed: Array = found.numpy()
    return summed


def _matrix(opened: OpenedExperts, name: str, rank: int) -> _Matrix | None:
    """Compare the experts' updates of one weight, as a matrix of its outputs; None if it is small, or a vector."""
    shape = opened.shapes[name]
    if len(shape) < 2 or min(sides := (shape[0], shape[1:].numel())) < 2 * rank:
        return None
    updates = (_update(opened, expert, name) for expert in opened.experts)
    spaces = [None if update is None else subspace(update, rank) for update in updates]
    energy = [np.nan if space is None else space.energy for space in spaces]
    widest = max((space.left.shape[1] for space in spaces if space is not None), default=rank)
    return _Matrix(overlaps(spaces), np.asarray(sum(widest / side for side in sides) / 2), np.asarray(energy))


def _update(opened: OpenedExperts, expert: str, name: str) -> Tensor | LowRank | None:
    """Return an update as a matrix; None for a weight that an adapter does not change."""
    state = opened.experts[expert]
    if isinstance(state, LowRankDelta):
        return state.factors.get(name)
    return (state[name].float() - opened.base[name].float()).flatten(1)


def _check_finite(names: Sequence[str], parameter: str, products: Array) -> None:
    for expert, square in zip(names, np.diagonal(products), strict=True):
        if not np.isfinite(square):
            raise ValueError(f"experts.{expert}: {parameter}: NaN or infinite values: the training may have diverged")


def _check_changed(names: Sequence[str], products: Array) -> None:
    for expert, square in zip(names, np.diagonal(products), strict=True):
        if square == 0:
            raise ValueError(f"experts.{expert}: {NO_CHANGE}")
