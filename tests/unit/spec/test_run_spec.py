"""Proves what specs mean: short forms, paths next to the spec, and the schema of every field."""

from pathlib import Path

import pytest
import yaml
from toy import TASKS, toy_spec

from pipeline.spec.load import load_spec, parse_spec
from pipeline.spec.run import RunSpec

GOOD = toy_spec().model_dump(mode="json")


def test_a_spec_comes_back_from_its_own_json() -> None:
    """The journal's header holds the spec, and a run is read back from it."""
    knots = {
        "function": "piecewise",
        "beta": 1,
        "params": {"knots": [0, {"grid": [0.5, 1]}, {"range": [0, 1], "step": 0.5}]},
    }
    spec = toy_spec(
        controls=["uniform"], arms={"x": {"merge": "sum", "scaling": knots}, "y": {"edit": "cats"}}, limits={"val": 9}
    )
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_short_forms_mean_the_long_ones() -> None:
    spec = parse_spec({**GOOD, "tasks": ["cats", "embedded/dogs", "some/cars"], "ood": {}, "controls": ["reversed"]})
    assert {n: t.source for n, t in spec.tasks.items()} == {
        "cats": "embedded/cats", "dogs": "embedded/dogs", "cars": "some/cars"
    }  # fmt: skip
    assert spec.controls.kinds == ("reversed",) and spec.controls.constants == 21
    one = toy_spec(select={"maximise": "worst"}, arms={"x": {"merge": {"method": "sum"}}, "y": {"merge": "sum"}})
    assert one.select.maximise == ("worst",) and one.arms["x"] == one.arms["y"]


def test_paths_that_exist_next_to_the_spec_are_absolute(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cats.safetensors").touch()
    (tmp_path / "more.py").touch()
    experts = {**dict.fromkeys(TASKS, "hf:owner/model"), "cats": "models/cats.safetensors", "dogs": "nowhere.pt"}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "experts": experts, "plugins": ["more.py", "package.module", "folder"]}))
    (tmp_path / "folder").mkdir()  # a plug-in of this name is still a module
    spec = load_spec(path)
    assert spec.experts["cats"] == str(tmp_path / "models" / "cats.safetensors")
    assert (spec.experts["dogs"], spec.experts["cars"]) == ("nowhere.pt", "hf:owner/model")
    assert spec.plugins == (str(tmp_path / "more.py"), "package.module", "folder")


@pytest.mark.parametrize("name", ["a" * 300, "models/" + "a" * 5000, "(" * 5000])
def test_a_name_that_is_too_long_for_the_disk_is_no_path_next_to_the_spec(tmp_path: Path, name: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "experts": {"cats": name}, "tasks": {t: name for t in TASKS}, "ood": {}}))
    assert load_spec(path).experts["cats"] == name


def test_the_schema_describes_every_field() -> None:
    schema = RunSpec.model_json_schema()
    assert set(schema["properties"]) == set(RunSpec.model_fields)
    for name, model in {"RunSpec": schema, **schema["$defs"]}.items():
        described = [field for field in model["properties"].values() if "description" in field or "$ref" in field]
        assert len(described) == len(model["properties"]), name
    assert all(field.description for field in RunSpec.model_fields.values())


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        toy_spec().seed = 3  # type: ignore[misc]


def test_a_bare_name_that_is_no_embedded_task_is_a_folder_next_to_the_spec(tmp_path: Path) -> None:
    (tmp_path / "cars").mkdir()
    (tmp_path / "mnist").mkdir()
    data = {**GOOD, "tasks": [*TASKS, "mnist"], "ood": {}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(data))
    spec = load_spec(tmp_path / "spec.yaml")
    assert spec.tasks["cars"].source == str(tmp_path / "cars")
    assert spec.tasks["mnist"].source == "embedded/mnist"
