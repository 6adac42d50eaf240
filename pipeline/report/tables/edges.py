"""Choices that lie on the edge of what was searched: a better one may lie beyond."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.merging.methods import METHODS
from pipeline.merging.scaling import split_control
from pipeline.recipe import OUTSIDE
from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import PRE_TRAINED, CandidateRow

#: Fewer values of a dimension have no inside.
_FEWEST = 3
#: Fields of a spec that are no part of a dimension's name, and those that have another name there.
_UNNAMED, _RENAMED = ("merge", "scaling", "params"), {"outside": OUTSIDE, "components": "component"}
Ends = tuple[float, float]


def edge_warnings(measure: Measure) -> list[str]:
    """Return a sentence for each arm and dimension whose chosen value is the smallest or largest that was tried.

    A range was tried from its lowest to its highest value, wherever the sampler went.

    0, where an edit or a merge does nothing, is no edge; nor is 1 for an edit: the fine-tuned model; nor is the lowest
    or highest value that a parameter may have.
    """
    written = measure.run.provenance["spec"]["arms"]
    arms = [arm for arm in measure.arms if arm.kind != PRE_TRAINED]
    return [text for arm in arms for text in _warnings(arm, _ranges_of(arm, written))]


def _warnings(arm: ArmResult, ranges: Mapping[str, Ends]) -> list[str]:
    found: dict[tuple[str, str, float], list[str]] = {}
    for group in arm.groups:
        chosen = arm.chosen(group)
        if chosen is None or not chosen.chosen:
            continue
        for dimension, (value, end) in _edges(chosen, [c for c in arm.candidates if c.group == group], ranges).items():
            if not (arm.kind == "edit" and value == 1):
                found.setdefault((dimension, end, value), []).append(group)
    return [
        f"{_named(arm, groups)}: {dimension} = {value:g} is the {end} value that was tried; a better one may lie "
        "beyond: widen its range."
        for (dimension, end, value), groups in found.items()
    ]


def _named(arm: ArmResult, groups: Sequence[str]) -> str:
    return f"{arm.name} ({', '.join(groups)})" if any(groups) else arm.name


def _ranges_of(arm: ArmResult, written: Mapping[str, object]) -> dict[str, Ends]:
    """Return dimension -> the ends of its range; tuned constants, a control, have a range that no spec holds."""
    return {} if arm.role == "constant" else dict(_ranges(written.get(arm.control_of or arm.name)))


def _ranges(written: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Ends]]:
    if isinstance(written, Mapping) and "range" in written:
        low, high = written["range"]
        yield ".".join(path), (low, high)
    elif isinstance(written, Mapping):
        for key, value in written.items():
            yield from _ranges(value, path if key in _UNNAMED else (*path, _RENAMED.get(str(key), str(key))))
    elif isinstance(written, list):
        for i, value in enumerate(written):
            yield from _ranges(value, (*path, str(i)))


def _edges(
    chosen: CandidateRow, tried: Iterable[CandidateRow], ranges: Mapping[str, Ends]
) -> dict[str, tuple[float, str]]:
    tried = list(tried)
    found = {}
    for dimension, value in chosen.point.items():
        values = sorted({v for c in tried if isinstance(v := c.point.get(dimension), int | float)})
        if len(values) < _FEWEST or not isinstance(value, int | float) or value == 0:
            continue
        low, high = ranges.get(dimension, (values[0], values[-1]))
        if value in (low, high) and value not in _bounds(chosen, dimension):
            found[dimension] = (float(value), "smallest" if value == low else "largest")
    return found


def _bounds(candidate: CandidateRow, dimension: str) -> tuple[float, ...]:
    """Return the lowest and highest value of a method's or a profile's parameter; () for other dimensions."""
    method, scaling = METHODS.get(candidate.recipe.method), split_control(candidate.recipe.scaling)[1]
    declared = (*(method.parameters if method else ()), *scaling.parameters)
    return next(((p.low, p.high) for p in declared if p.name == dimension), ())
