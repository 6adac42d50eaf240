"""Proves what each kind of parameter accepts, in specs and on the command line, and its errors."""

import math

import pytest

from pipeline.merging.methods import METHODS
from pipeline.merging.scaling import SCALINGS
from pipeline.parameters import Parameter

FLOAT = Parameter("share", "", 0.5, low=0, high=1, open_high=True)
INT = Parameter("count", "", 1, "int", low=0)
FLOATS = Parameter("knots", "", (0.0, 1.0), "floats", min_length=2)
EITHER = Parameter("lambda", "", 0.4, "float_or_floats", low=0)
CHOICE = Parameter("aggregate", "", "mean", "choice", choices=("mean", "sum"))


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (FLOAT, "0.25", 0.25),
        (INT, "25599489", 25599489),
        (INT, "2.0", 2),
        (FLOATS, "0,1,0.5", (0.0, 1.0, 0.5)),
        (FLOATS, "[0, 1, 0.5]", (0.0, 1.0, 0.5)),
        (EITHER, "0.4", 0.4),
        (EITHER, "[0.4]", (0.4,)),
        (EITHER, "0.4,0.5", (0.4, 0.5)),
        (CHOICE, "sum", "sum"),
    ],
)
def test_values(parameter: Parameter, text: str, value: object) -> None:
    assert parameter.parse(text) == value
    assert parameter.check(value) == value  # type: ignore[arg-type]


def test_whole_numbers_become_ints() -> None:
    """A grid of a spec holds floats; seeds and counts must equal those of the command line, also in print."""
    assert isinstance(INT.check(2.0), int)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (FLOAT, 1, r"share: must be in \[0, 1\), got 1"),
        (FLOAT, "half", "share: must be a number, got 'half'"),
        (FLOAT, (0.1, 0.2), r"share: must be a number, got \(0.1, 0.2\)"),
        (FLOAT, math.nan, "share: must be in"),
        (INT, 1.5, "count: must be a whole number, got 1.5"),
        (INT, -1, r"count: must be in \[0, inf\), got -1"),
        (INT, "2", "count: must be a whole number, got '2'"),
        (FLOATS, 1.0, "knots: must be a sequence of numbers, got 1.0"),
        (FLOATS, (1.0,), "knots: must have at least 2 numbers, got 1"),
        (EITHER, "all", "lambda: must be a number or a sequence of numbers, got 'all'"),
        (EITHER, (), "lambda: must have at least 1 numbers, got 0"),
        (EITHER, (0.4, -1.0), r"lambda: must be in \[0, inf\), got -1"),
        (CHOICE, "median", "aggregate: must be one of mean, sum, got 'median'"),
        (CHOICE, 1.0, "aggregate: must be one of mean, sum, got 1.0"),
    ],
)
def test_what_is_refused(parameter: Parameter, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter.check(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameter", "text", "message"),
    [
        (INT, "two", "count: must be a whole number, got 'two'"),
        (INT, "1,2", "count: must be a whole number"),
        (INT, "[1]", "count: must be a whole number"),
        (EITHER, "[0.4", "lambda: must be a number or a sequence"),
        (EITHER, "0.4,x", "lambda: must be a number or a sequence of numbers with commas between them, got '0.4,x'"),
        (CHOICE, "0.5", "aggregate: must be one of mean, sum, got '0.5'"),
    ],
)
def test_what_the_command_line_refuses(parameter: Parameter, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter.parse(text)


def test_every_default_is_allowed_and_no_name_is_used_twice() -> None:
    """A recipe carries the parameters of its method and of its scaling together."""
    shapes = [p for scaling in SCALINGS.values() for p in scaling.parameters]
    for method in METHODS.values():
        declared = [*method.parameters, *shapes]
        assert all(p.check(p.default) == p.default for p in declared)
        assert len({p.name for p in method.parameters} & {p.name for p in shapes}) == 0
        assert len({p.name for p in method.parameters}) == len(method.parameters)
