"""Proves that a file which is no plain YAML is refused with line, column and what to do, soon and in little memory."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.spec.yaml_reader import read_yaml


def read(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: c: d\n", "line 2, column 5: not valid YAML: a ':' where none can be"),
        ("a:\n\tb: 1\n", "line 2, column 1: not valid YAML: a tab: indent with spaces"),
        ("a: 1\nb\n", "line 3, column 1: not valid YAML: the line is neither 'key: value' nor '- value'"),
        ("a:\n  b: 1\n   c: 2\n", "not valid YAML: a ':' where none can be"),
        ("a: [1, 2\nb: 3\n", "not valid YAML: a comma or ] is missing here: close brackets"),
        ("a: 'text\n", "not valid YAML: a quote that is not closed"),
        ('a: "x\\q"\n', "line 1, column 7: not valid YAML: 'q' after a backslash in double quotes: use single quotes"),
        ("a: *b\n", "line 1, column 4: not valid YAML: no anchor 'b' above: put text that begins with * in quotes"),
        ("a: @b\n", "line 1, column 4: not valid YAML: text that begins with '@': put it in quotes"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: not valid YAML: a second document"),
        ("a: !!binary aGk=\n", "line 1, column 4: not valid YAML: the tag !!binary: a spec holds text, numbers"),
        ("a: !!set {x}\n", "the tag !!set"),
        ("a: !!int x\n", "line 1, column 4: not valid YAML: must be of the type int, got 'x'"),
        ("a: !!bool x\n", "must be of the type bool, got 'x'"),
        ("a: !!float ''\n", "must be of the type float, got ''"),
        (f"a: 1{'0' * 400}\n", "line 1, column 4: not valid YAML: must be a number of at most 308 digits"),
        (f"a: 0x{'f' * 300}\n", "must be a number of at most 308 digits"),
        (f"a: 1{'0' * 5000}\n", "must be of the type int, got '10000"),
        ("a: .nan\n", "line 1, column 4: not valid YAML: must not be NaN, got '.nan'"),
        (
            "1: a\n",
            "line 1, column 1: not valid YAML: the key 1 is read as a number, as true, false or null: put",
        ),
        ("a: {on: b}\n", "line 1, column 5: not valid YAML: the key on is read as a number, as true, false or null"),
        ("? [a]\n: b\n", "not valid YAML: a list or mapping as key"),
        ("a: 1\na: 2\n", "line 2, column 1: not valid YAML: duplicate key 'a': keep one of the two"),
        ('a: "x\\0"\n', r"line 1, column 4: not valid YAML: the control character '\x00': remove it"),
        ('a: "\\ud800"\n', r"the control character '\ud800'"),
        ("a: x\n  \x1b[2J\n", r"line 2, column 3: not valid YAML: the control character '\x1b': remove it"),
        ("a: &x [*x]\n", "nested too deeply or contain themselves"),
        ("a: " + "[" * 100 + "]" * 100, "nested too deeply"),
        ("a: &a0 [x]\n" + "".join(f"b{i}: &a{i + 1} [*a{i}]\n" for i in range(100)), "nested too deeply"),
        ("a: {<<: 1}\n", "<<: must be the alias of a mapping"),
    ],
)
def test_an_error_has_the_place_and_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path, text)


def test_dates_and_signs_are_text_and_powers_of_ten_are_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, "{a: 2024-01-01, b: =, c: 1e-3, d: 1_000, e: .inf}") == {
        "a": "2024-01-01",
        "b": "=",
        "c": 0.001,
        "d": 1000,
        "e": float("inf"),
    }


def test_merged_mappings_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffa: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")["b"] == {"x": 1, "y": 3}


def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 4 MiB"):
        read_yaml(Path("/dev/zero"))


@pytest.mark.slow
def test_a_file_of_too_many_values_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="at most 100,000 values"):
        read(tmp_path, "a: [" + "[]," * 1_300_000 + "]")
    assert time.process_time() - started < 10
