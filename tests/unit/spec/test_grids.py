"""Proves that `...` in a grid continues a sequence, and is refused if it has no meaning."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.spec.values import Grid


def grid(written: list[Any]) -> tuple[float, ...]:
    return Grid.model_validate({"grid": written}).grid


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ([0.0, 0.1, "...", 0.5], (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        ([1, 2, 4, 6, "...", 10], (1, 2, 4, 6, 8, 10)),
        ([1.0, 0.5, "...", -0.5], (1.0, 0.5, 0.0, -0.5)),
        ([0, 1, "...", 1], (0, 1)),
    ],
)
def test_dots_continue_a_sequence(written: list[Any], values: tuple[float, ...]) -> None:
    assert grid(written) == values


@given(st.integers(-20, 20), st.integers(1, 50), st.integers(2, 60))
def test_dots_give_the_numbers_that_a_user_would_write(start: int, step: int, count: int) -> None:
    whole = [round((start + i * step) / 100, 2) for i in range(count + 1)]
    assert list(grid([*whole[:2], "...", whole[-1]])) == whole


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([0, "...", 1], "must have at least two numbers before it"),
        ([0, 0.5, "..."], "must have at least two numbers before it"),
        ([0, 1, "...", 2, 3], "must have at least two numbers before it"),
        ([0, 1, "...", 3, "...", 5], "must have at least two numbers before it"),
        ([0, 0.3, "...", 1], "1 cannot be reached from 0.3 in steps of 0.3"),
        ([0, 0.1, "...", -1], "cannot be reached"),
        ([0.1, 0.1, "...", 1], "cannot be reached"),
        ([None, 0.1, "...", 1], "must be between numbers"),
        (["a", 0.1, "...", 1], "must be between numbers"),
        ([0, 1e-9, "...", 1], "at most 10,000 values"),
    ],
)
def test_dots_without_a_meaning_are_refused(written: list[Any], message: str) -> None:
    with pytest.raises(ValidationError, match=rf"'\.\.\.': .*{re.escape(message)}"):
        grid(written)
