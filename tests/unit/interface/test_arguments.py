"""Proves that errors name arguments, and leave the options of commands that they advise."""

import pytest

from lines_sweep.arguments import named_arguments
from pipeline.cluster.join import join


def test_a_command_in_backticks_keeps_its_options() -> None:
    with pytest.raises(ValueError) as error, named_arguments({"address": "address"}):
        join("ray://head:10001", {})
    text = str(error.value)
    assert text.startswith("address ray://head:10001: ")
    assert "`lines submit SPEC --address http://HOST:8265`" in text and "`lines run SPEC --address auto`" in text


def test_options_without_an_argument_stay() -> None:
    with pytest.raises(ValueError, match="^give another out, or --force$"), named_arguments({"out": "out"}):
        raise ValueError("give another --out, or --force")
