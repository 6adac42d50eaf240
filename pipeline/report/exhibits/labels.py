"""Positions for the names of dots, so that they do not cover each other."""

from collections.abc import Sequence
from dataclasses import dataclass

#: A panel as wide as the page, in pixels; the positions also suit other widths.
WIDTH, HEIGHT = 1000, 390
CHARACTER, LINE, GAP = 7.4, 14, 7
#: plotly's positions in order of preference -> the direction from the dot to its name, (across, up).
POSITIONS = {
    "middle right": (1, 0),
    "middle left": (-1, 0),
    "top center": (0, 1),
    "bottom center": (0, -1),
    "top right": (1, 1),
    "bottom right": (1, -1),
    "top left": (-1, 1),
    "bottom left": (-1, -1),
}
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Spot:
    """A dot with its name, in units of the axes."""

    name: str
    x: float
    y: float


def placed(spots: Sequence[Spot], x_range: tuple[float, float], y_range: tuple[float, float]) -> list[str]:
    """Return plotly's `textposition` of each name: greedily, the one that covers least of dots, names and the edge."""
    across = [WIDTH * (spot.x - x_range[0]) / (x_range[1] - x_range[0]) for spot in spots]
    up = [HEIGHT * (spot.y - y_range[0]) / (y_range[1] - y_range[0]) for spot in spots]
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in zip(across, up, strict=True)]
    found = []
    for spot, x, y in zip(spots, across, up, strict=True):
        boxes = {position: label_box(spot.name, x, y, way) for position, way in POSITIONS.items()}
        position = min(boxes, key=lambda name: _covered(boxes[name], taken))
        taken.append(boxes[position])
        found.append(position)
    return found


def label_box(name: str, x: float, y: float, way: tuple[int, int]) -> Box:
    """Return left, bottom, right and top of a name, `way` from its dot at (x, y), in pixels."""
    width = CHARACTER * len(name)
    middle_x, middle_y = x + way[0] * (GAP + width / 2), y + way[1] * (GAP if way[0] else GAP + LINE / 2)
    return middle_x - width / 2, middle_y - LINE / 2, middle_x + width / 2, middle_y + LINE / 2


def _covered(box: Box, taken: Sequence[Box]) -> float:
    """Area that overlaps with what is there or is outside the panel."""
    shared = sum(overlap(box, other) for other in taken)
    inside = overlap(box, (0, 0, WIDTH, HEIGHT))
    return shared + (box[2] - box[0]) * (box[3] - box[1]) - inside


def overlap(a: Box, b: Box) -> float:
    """Return the area that two boxes share."""
    across, up = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(across, 0) * max(up, 0)
