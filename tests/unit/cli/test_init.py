"""Proves that `lines init` writes specs that lack only the user's files, and that the demo is in the package."""

from importlib.resources import files
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from pipeline.cli import specs
from pipeline.cli.init import Family
from pipeline.cli.main import app
from pipeline.cli.schemas import schema_of
from pipeline.plan.plan import make_plan
from pipeline.spec.load import load_spec
from pipeline.spec.yaml_reader import read_yaml

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("family", list(Family))
def test_a_new_spec_is_valid_and_names_its_family(family: Family, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    result = CliRunner().invoke(app, ["init", str(path), "--family", family])
    assert result.exit_code == 0 and f"lines validate {path}" in " ".join(result.output.split())
    spec = load_spec(path)
    assert spec.backbone.family == family and len(make_plan(spec).groups) > 8
    assert not list(Draft202012Validator(schema_of("run")).iter_errors(read_yaml(path)))
    assert all(len(line) <= 120 for line in path.read_text().splitlines())
    again = CliRunner().invoke(app, ["init", str(path)])
    assert again.exit_code == 2 and "exists already" in again.output


def test_a_new_spec_without_files_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    CliRunner().invoke(app, ["init", str(path)])
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 2 and "cars.pt" in result.output and "flowers.safetensors" in result.output
    assert CliRunner().invoke(app, ["init", str(tmp_path / "no" / "a.yaml")]).exit_code == 2


def test_the_packages_demo_is_that_of_the_examples() -> None:
    first, *rest = (ROOT / "examples" / "demo.yaml").read_text(encoding="utf-8").splitlines()
    assert first.startswith("# yaml-language-server")
    assert (files(specs) / "demo.yaml").read_text(encoding="utf-8").splitlines() == rest
