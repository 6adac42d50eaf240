"""The order of samples in which bad candidates show early, and the candidates from which it is learnt.

Shape legend: n samples of a task.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.records.sample_order import SampleOrder
from search.design import farthest_first
from search.space import Space

#: Samples of a stage: a sixteenth of all, but at least so many.
_STAGES, _LEAST = 16, 64
#: The part of each task's samples in each of the two random stages before the hardest come, for a race.
_RACED = (1 / 16, 1 / 8)
#: The number of these stages.
RACES = len(_RACED)

Errors = Mapping[str, npt.NDArray[np.float64]]


def spread_numbers(space: Space, count: int) -> list[int]:
    """Return the numbers of a grid's points that are far from each other, from its centre outwards.

    Example:
        >>> from search.space import Choice
        >>> spread_numbers(Space((Choice("alpha", (0.0, 0.1, 0.5, 0.9, 1.0)),)), 3)
        [2, 0, 4]
    """
    sizes = [len(dim.values()) for dim in space.dims]
    axes = [np.linspace(0, 1, size) if size > 1 else np.full(1, 0.5) for size in sizes]
    return farthest_first(np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1), count)


def hardest_first(
    errors: Errors, weights: Mapping[str, float], together: Mapping[str, int], salts: Mapping[str, str], race: bool
) -> SampleOrder:
    """Order samples by weight x errors, the largest first, then by task and number, and cut the order into stages.

    Args:
        errors: task -> how many of some candidates are wrong on each sample (n,).
        weights: task -> what one error costs of the objectives.
        together: task -> samples that are scored together, which stay together.
        salts: task -> fingerprint of its data, which decides the random samples of a race.
        race: whether two stages with a random sixteenth of every task come first.
    """
    pieces = [piece for task in errors for piece in _pieces(task, errors[task] * weights[task], together[task])]
    raced: list[list[tuple[str, int, int]]] = []
    if race:
        raced, pieces = _random_stages(errors, salts, pieces)
    numbers = {task: i for i, task in enumerate(errors)}
    pieces.sort(key=lambda piece: (-piece[0], numbers[piece[1]], piece[2]))
    rest = [(task, start, stop) for _, task, start, stop in pieces]
    return _order(errors, [*raced, *_cut(rest, _stage_size(sum(map(len, errors.values()))))])


def _stage_size(samples: int) -> int:
    return max(_LEAST, -(-samples // _STAGES))


def stages_of(samples: int) -> int:
    """Return the number of stages of so many samples, if each sample can be scored alone."""
    return -(-samples // _stage_size(samples)) if samples else 0


def _pieces(task: str, costs_n: npt.NDArray[np.float64], size: int) -> list[tuple[float, str, int, int]]:
    """Return (mean cost, task, start, stop) of each group of samples that are scored together."""
    starts = range(0, len(costs_n), size)
    return [(float(costs_n[i : i + size].mean()), task, i, min(i + size, len(costs_n))) for i in starts]


def _random_stages(
    errors: Errors, salts: Mapping[str, str], pieces: list[tuple[float, str, int, int]]
) -> tuple[list[list[tuple[str, int, int]]], list[tuple[float, str, int, int]]]:
    """Return the two random stages, and the pieces that are left; a task has two samples or more in each if it can."""
    stages: list[list[tuple[str, int, int]]] = [[] for _ in _RACED]
    left = []
    for task, errors_n in errors.items():
        own = sorted((p for p in pieces if p[1] == task), key=lambda p: _hash(salts[task], p[2]))
        known = np.cumsum([stop - start for _, _, start, stop in own])
        least = [max(2 * (i + 1), round(f * len(errors_n))) for i, f in enumerate(_RACED)]
        ends = np.minimum(np.searchsorted(known, least) + 1, len(own)).tolist()
        for stage, (a, b) in enumerate(pairwise([0, *ends])):
            stages[stage] += [(name, start, stop) for _, name, start, stop in own[a:b]]
        left += own[ends[-1] :]
    return stages, left


def _hash(salt: str, row: int) -> bytes:
    return hashlib.blake2b(f"{salt}/{row}".encode(), digest_size=8).digest()


def _cut(pieces: Sequence[tuple[str, int, int]], size: int) -> list[list[tuple[str, int, int]]]:
    """Cut pieces into stages of at least `size` samples; the last may have fewer."""
    stages: list[list[tuple[str, int, int]]] = [[]]
    filled = 0
    for piece in pieces:
        if filled >= size:
            stages.append([])
            filled = 0
        stages[-1].append(piece)
        filled += piece[2] - piece[1]
    return stages


def _order(errors: Errors, stages: Sequence[Sequence[tuple[str, int, int]]]) -> SampleOrder:
    rows: dict[str, list[int]] = {task: [] for task in errors}
    cuts = {task: [0] for task in errors}
    for stage in stages:
        for task, start, stop in stage:
            rows[task] += range(start, stop)
        for task, ends in cuts.items():
            ends.append(len(rows[task]))
    as_arrays = {task: np.array(some, np.int64) for task, some in rows.items()}
    return SampleOrder(as_arrays, {task: np.array(ends, np.int64) for task, ends in cuts.items()})
