"""How ranges are searched if the spec does not say: a few candidates, proposed by a Gaussian process."""

from collections.abc import Iterator, Mapping
from typing import Any

#: Candidates for one dimension, and for more (docs/guides/few-candidates.md has the measurements).
ONE_DIMENSION, SEVERAL_DIMENSIONS = 10, 20
#: Candidates that fill the space evenly before the model proposes others; at most half of all.
SPREAD = 8


def with_default_search(arm: Mapping[str, Any]) -> Mapping[str, Any]:
    """Complete `search` of an arm that searches a range without steps and names no sampler.

    The completed fields are part of the spec in the run's folder, so a later default does not change a recorded run. An
    arm of any other form is returned as it is: its grid has every point.

    Args:
        arm: the arm as it is written.

    Example:
        >>> with_default_search({"merge": "sum", "scaling": {"alpha": {"range": [0, 1]}}})["search"]
        {'sampler': 'gp', 'trials': 10, 'options': {'startup': 'spread', 'startup_trials': 5}}
    """
    search = arm.get("search", {})
    searched = [*_searched(arm.get("merge")), *_searched(arm.get("scaling"))]
    if not isinstance(search, Mapping) or "sampler" in search or not any(map(_continuous, searched)):
        return arm
    usual = ONE_DIMENSION if len(searched) == 1 else SEVERAL_DIMENSIONS
    trials = usual if search.get("trials") is None else search["trials"]
    if isinstance(trials, int) and trials < 2:  # nothing can be learnt
        return {**arm, "search": {**search, "sampler": "random", "trials": trials}}
    half = trials // 2 if isinstance(trials, int) else SPREAD
    options = {"startup": "spread", "startup_trials": min(SPREAD, half)} | dict(search.get("options") or {})
    return {**arm, "search": {**search, "sampler": "gp", "trials": trials, "options": options}}


def _searched(written: object) -> Iterator[Mapping[str, Any]]:
    """Yield the ranges, and the grids of several values, inside a merge or a scaling."""
    if isinstance(written, list | tuple):
        for part in written:
            yield from _searched(part)
    elif isinstance(written, Mapping):
        grid = written.get("grid")
        if "range" in written or (isinstance(grid, list | tuple) and len(grid) > 1):
            yield written
        else:
            yield from _searched([*written.values()])


def _continuous(searched: Mapping[str, Any]) -> bool:
    return "range" in searched and searched.get("step") is None
