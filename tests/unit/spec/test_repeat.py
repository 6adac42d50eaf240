"""Proves that `repeat` gives the spec that is written out, in its order, and refuses what it cannot repeat."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.spec.load import load_spec, parse_spec
from pipeline.spec.repeat import repeated

SETS = {"two": {"experts": ["a", "b"], "most": 1.0}, "all": {"experts": None, "most": 1.5}}


def rest(**data: Any) -> Any:
    return repeated({"repeat": {"set": SETS, "how": ["sum", "average"]}, **data}, "spec")


def test_neighbours_repeat_together_and_the_first_variable_outermost() -> None:
    arms = {"zero": 1, "fine, {set}": 2, "{how}, {set}": 3, "{how} + LiNeS, {set}": 4, "last": 5}
    names = ["zero"]
    for one in ("two", "all"):
        names += [f"fine, {one}", *(f"{how}{end}, {one}" for how in ("sum", "average") for end in ("", " + LiNeS"))]
    assert list(rest(arms=arms)["arms"]) == [*names, "last"]


def test_a_whole_text_keeps_the_type_of_its_field_and_a_part_becomes_text() -> None:
    arms = {"{how} {set}": {"experts": "{set.experts}", "grid": [0.1, "...", "{set.most}"], "note": "up to {set.most}"}}
    found = rest(arms=arms)["arms"]
    assert found["sum two"] == {"experts": ["a", "b"], "grid": [0.1, "...", 1.0], "note": "up to 1.0"}
    assert found["average all"] == {"experts": None, "grid": [0.1, "...", 1.5], "note": "up to 1.5"}


def test_items_of_lists_repeat_for_what_they_name() -> None:
    rows = {"{how}": ["first", "{how}, {set}", {"arm": "{how} + LiNeS, {set}", "metric": "alpha"}]}
    assert rest(rows=rows)["rows"]["sum"] == [
        "first", "sum, two", {"arm": "sum + LiNeS, two", "metric": "alpha"}, "sum, all",
        {"arm": "sum + LiNeS, all", "metric": "alpha"},
    ]  # fmt: skip
    assert rest(any=[{"{set}": ["{how}"]}])["any"] == [{"two": ["sum", "average"], "all": ["sum", "average"]}]


def test_an_entry_that_is_written_out_is_an_exception_of_its_set() -> None:
    arms = {"{how}, {set}": {"scaling": {"alpha": 1, "beta": 0}}, "sum, all": {"scaling": {"alpha": 2}}}
    found = rest(arms=arms)["arms"]
    assert list(found) == ["sum, two", "average, two", "sum, all", "average, all"]
    assert found["sum, all"] == {"scaling": {"alpha": 2, "beta": 0}} != found["sum, two"]


def test_other_braces_and_specs_without_repeat_stay() -> None:
    assert rest(prompt="{text} {sets}", arms=["{set}{how}"])["prompt"] == "{text} {sets}"
    assert repeated({"prompt": "{set}"}, "spec") == {"prompt": "{set}"}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"repeat": 3}, "spec: repeat: must be a mapping of variables"),
        ({"repeat": {"a b": ["x"]}}, "spec: repeat.a b: must be a word of letters"),
        ({"repeat": {"set": []}}, "spec: repeat.set: must be names, as in .two, all., or names with fields"),
        ({"repeat": {"set": {"two": 3}}}, "spec: repeat.set.two: must be a mapping of fields, got 3"),
        ({"repeat": {"set": SETS}, "arms": {}}, "spec: repeat.set: is used nowhere: write {set} where it repeats"),
        ({"repeat": {"set": SETS}, "name": "{set}"}, "spec: '{set}' stands in no key of a mapping and in no list"),
        (
            {"repeat": {"set": SETS}, "arms": {"{set}": "{set.expert}"}},
            "spec: repeat.set.two: has no 'expert', which is used; did you mean 'experts'",
        ),
        ({"repeat": {"set": SETS}, "arms": {"{set}": 1, "a": 2, "x{set.most}": 3, "x1.0": 4, "x{set.most} ": 5}}, None),
        ({"repeat": {"set": {"a": {"n": 1}, "b": {"n": 1}}}, "arms": {"{set.n}": 1}}, "makes 1 twice"),
        (
            {"repeat": {v: [str(i) for i in range(99)] for v in "xyz"}, "arms": ["{x}{y}{z}"]},
            "more than 20,000",
        ),
    ],
)
def test_what_cannot_be_repeated_is_refused(data: Any, error: str | None) -> None:
    if error is None:
        assert set(repeated(data, "spec")["arms"]) >= {"two", "all", "a", "x1.0", "x1.5"}
        return
    with pytest.raises(ValueError, match=error.replace("{", r"\{").replace("}", r"\}")):
        repeated(data, "spec")


def test_a_spec_with_repeat_is_the_spec_that_is_written_out(tmp_path: Path) -> None:
    text = {
        "name": "short",
        "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        "base": "embedded/base",
        "repeat": {"task": ["mnist", "fashion"], "set": {"one": {"of": ["mnist"]}, "both": {"of": None}}},
        "experts": {"{task}": "embedded/{task}"},
        "tasks": ["{task}"],
        "arms": {"sum, {set}": {"merge": "sum", "experts": "{set.of}"}},
    }
    (tmp_path / "short.yaml").write_text(json.dumps(text))
    found = load_spec(tmp_path / "short.yaml")
    del text["repeat"]
    text["experts"] = {"mnist": "embedded/mnist", "fashion": "embedded/fashion"}
    text["tasks"] = ["mnist", "fashion"]
    text["arms"] = {"sum, one": {"merge": "sum", "experts": ["mnist"]}, "sum, both": {"merge": "sum"}}
    assert found == parse_spec(text)
