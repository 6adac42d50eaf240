"""Choices that lie on the edge of what was searched: a better one may lie beyond."""

from collections.abc import Iterable, Sequence

from pipeline.merging.methods import METHODS
from pipeline.merging.scaling import split_control
from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import PRE_TRAINED, CandidateRow

#: Fewer values of a dimension have no inside.
_FEWEST = 3


def edge_warnings(measure: Measure) -> list[str]:
    """Return a sentence for each arm and dimension whose chosen value is the smallest or largest that was tried.

    0, where an edit or a merge does nothing, is no edge; nor is 1 for an edit: the fine-tuned model; nor is the lowest
    or highest value that a parameter may have.
    """
    return [text for arm in measure.arms if arm.kind != PRE_TRAINED for text in _warnings(arm)]


def _warnings(arm: ArmResult) -> list[str]:
    found: dict[tuple[str, str, float], list[str]] = {}
    for group in arm.groups:
        chosen = arm.chosen(group)
        if chosen is None or not chosen.chosen:
            continue
        for dimension, (value, end) in _edges(chosen, [c for c in arm.candidates if c.group == group]).items():
            if not (arm.kind == "edit" and value == 1):
                found.setdefault((dimension, end, value), []).append(group)
    return [
        f"{_named(arm, groups)}: {dimension} = {value:g} is the {end} value that was tried; a better one may lie "
        "beyond: widen its range."
        for (dimension, end, value), groups in found.items()
    ]


def _named(arm: ArmResult, groups: Sequence[str]) -> str:
    return f"{arm.name} ({', '.join(groups)})" if any(groups) else arm.name


def _edges(chosen: CandidateRow, tried: Iterable[CandidateRow]) -> dict[str, tuple[float, str]]:
    tried = list(tried)
    found = {}
    for dimension, value in chosen.point.items():
        values = sorted({v for c in tried if isinstance(v := c.point.get(dimension), int | float)})
        if len(values) < _FEWEST or not isinstance(value, int | float) or value == 0:
            continue
        if value in (values[0], values[-1]) and value not in _bounds(chosen, dimension):
            found[dimension] = (float(value), "smallest" if value == values[0] else "largest")
    return found


def _bounds(candidate: CandidateRow, dimension: str) -> tuple[float, ...]:
    """Return the lowest and highest value of a method's or a profile's parameter; () for other dimensions."""
    method, scaling = METHODS.get(candidate.recipe.method), split_control(candidate.recipe.scaling)[1]
    declared = (*(method.parameters if method else ()), *scaling.parameters)
    return next(((p.low, p.high) for p in declared if p.name == dimension), ())
