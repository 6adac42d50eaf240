"""Space-filling designs: the points at which a model-based search starts.

Legend: P candidates, D dimensions.
"""

import itertools
import math

import numpy as np
import numpy.typing as npt

from search.intervals import Array
from search.space import Choice, Dimension, Point, Space, Value

#: Candidates from which a design is taken, and the levels of each dimension in a lattice of no more than these.
_MOST = 4096
_LEVELS = (65, 33, 17, 9, 5, 3)


def farthest_first(places_PD: npt.ArrayLike, count: int) -> list[int]:
    """Return `count` rows: the one nearest to the centre, then always the row farthest from those before it.

    It is the greedy maximin design (Johnson, Moore and Ylvisaker 1990; Gonzalez 1985 bounds its distance by half of the
    best one). The first of equals wins. Fewer are returned if fewer rows differ.

    Args:
        places_PD: (P, D) candidates in the unit cube.
        count: how many rows to return, at least 1.

    Example:
        >>> farthest_first([[0.0], [0.25], [0.5], [0.75], [1.0]], 4)
        [2, 0, 4, 1]
    """
    places = np.asarray(places_PD, dtype=np.float64)
    rows = [int(np.argmin(_squares(places, np.full(places.shape[1], 0.5))))]
    apart_P = np.full(len(places), np.inf)
    while len(rows) < count:
        apart_P = np.minimum(apart_P, _squares(places, places[rows[-1]]))
        if apart_P.max() == 0:
            break
        rows.append(int(np.argmax(apart_P)))
    return rows


def _squares(places_PD: Array, place_D: Array) -> Array:
    """Return the squared distances, rounded, so that equal ones are equal on every machine."""
    squares_P: Array = ((places_PD - place_D) ** 2).sum(1)
    return squares_P.round(9)


def spread(space: Space, count: int) -> list[Point]:
    """Return up to `count` points that fill a space from its centre outwards; the same on every machine.

    Values of a list are all equally far from each other. Logarithmic ranges are filled on their scale. Fewer points are
    returned if the space has fewer.

    Example:
        >>> from search.space import Float
        >>> spread(Space((Float("alpha", 0.0, 1.0),)), 5)
        [{'alpha': 0.5}, {'alpha': 0.0}, {'alpha': 1.0}, {'alpha': 0.25}, {'alpha': 0.75}]
    """
    units_PD = _candidates(len(space.dims))
    columns = [_column(dim, units_PD[:, d]) for d, dim in enumerate(space.dims)]
    places_PD = np.concatenate([places for _, places in columns], axis=1)
    rows = farthest_first(places_PD, count)
    return [{dim.name: values[row] for dim, (values, _) in zip(space.dims, columns, strict=True)} for row in rows]


def _candidates(dims: int) -> Array:
    """Return (P, D) points of the unit cube: the finest lattice of not too many, or a Halton sequence.

    A lattice of three levels has too many points from 8 dimensions on. The centre is always there.
    """
    levels = next((n for n in _LEVELS if n**dims <= _MOST), 0)
    if levels:
        return np.array(list(itertools.product(np.linspace(0, 1, levels), repeat=dims)))
    from scipy.stats import qmc  # slow to import, and most spaces are smaller

    halton_PD: Array = qmc.Halton(dims, scramble=False).random(_MOST)
    halton_PD[0] = 0.5
    return halton_PD


def _column(dim: Dimension, units_P: Array) -> tuple[list[Value], Array]:
    """Return the values of a dimension at places of the unit interval, and their coordinates (P, width)."""
    if isinstance(dim, Choice):
        index_P = np.minimum((units_P * len(dim.choices)).astype(int), len(dim.choices) - 1)
        return [dim.choices[i] for i in index_P], np.eye(len(dim.choices))[index_P] * math.sqrt(0.5)
    if dim.low == dim.high:
        units_P = np.zeros_like(units_P)
    elif dim.step is not None:
        steps = round((dim.high - dim.low) / dim.step)
        units_P = np.rint(units_P * steps) / steps
    low, high = (math.log(dim.low), math.log(dim.high)) if dim.log else (dim.low, dim.high)
    plain = [low + unit * (high - low) for unit in units_P.tolist()]
    values = [min(max(float(f"{math.exp(v) if dim.log else v:.12g}"), dim.low), dim.high) for v in plain]
    return list(values), units_P[:, None]
