"""Proves that the JSON schemas accept the specs of examples and documents as they are written, and refuse mistakes."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from documents import PART, Block, spec_blocks
from jsonschema import Draft202012Validator

from pipeline.cli.schemas import schema_of
from pipeline.spec.commands import Command, command_of
from pipeline.spec.yaml_reader import read_yaml

ROOT = Path(__file__).parents[3]
COMMANDS: tuple[Command, ...] = ("run", "finetune", "ppo")
SCHEMAS = {command: Draft202012Validator(schema_of(command)) for command in COMMANDS}
OTHERS = {"models", "schemas", "mergekit", "github-workflow.yml"}
SPECS = [path for path in sorted((ROOT / "examples").rglob("*.y*ml")) if not OTHERS & set(path.parts)]
DEMO = read_yaml(ROOT / "examples" / "demo.yaml")


def errors(data: Any, command: Command | None = None) -> list[str]:
    return [error.message for error in SCHEMAS[command or command_of(data)].iter_errors(data)]


@pytest.mark.parametrize("command", COMMANDS)
def test_schemas_are_valid_and_the_files_of_the_examples_current(command: Command) -> None:
    Draft202012Validator.check_schema(SCHEMAS[command].schema)
    file = ROOT / "examples" / "schemas" / f"{command}.json"
    assert json.loads(file.read_text()) == SCHEMAS[command].schema, f"lines schema {command} > examples/schemas/..."


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_fit_their_schema_and_begin_with_it(path: Path) -> None:
    data = read_yaml(path)
    assert errors(data) == []
    file = os.path.relpath(ROOT / "examples" / "schemas" / f"{command_of(data)}.json", path.parent)
    assert path.read_text(encoding="utf-8").splitlines()[0] == f"# yaml-language-server: $schema={file}"


@pytest.mark.parametrize("block", spec_blocks(), ids=str)
def test_yaml_blocks_of_the_documents_fit_the_schema(block: Block, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(block.text)
    data = read_yaml(tmp_path / "spec.yaml")
    assert errors({"extends": "rest.yaml", **data} if block.title == PART else data) == []


def changed(**changes: Any) -> Any:
    return {**copy.deepcopy(DEMO), **changes}


@pytest.mark.parametrize(
    "data",
    [
        changed(seeds=1),
        changed(arms={"a": {"merge": "tise"}}),
        changed(arms={"a": {"merge": {"method": "tise"}}}),
        changed(arms={"a": {"merge": "sum", "scaling": {"function": "lin"}}}),
        changed(arms={"a": {"merge": "sum", "search": {"sampler": "tpes"}}}),
        changed(arms={"a": {"merge": "sum", "scaling": {"alpha": {"grid": []}}}}),
        changed(arms={"a": {"merge": "sum", "scaling": {"alpha": "automatic"}}}),
        changed(controls=["unicorn"]),
        changed(limits={"train": 3}),
        changed(tasks=[1, 2]),
        {key: value for key, value in DEMO.items() if key != "base"},
        {"extends": "a.yaml", "arms": {"a": {"marge": "sum"}}},
        {"repeat": {"set": {"two": 2}}, "arms": {"{set}": {"merge": "sum"}}},
        {"repeat": {"set": ["two"]}, "arms": {"{set}": {"merge": "tise"}}},
    ],
)
def test_mistakes_are_marked(data: Any) -> None:
    assert errors(DEMO) == [] != errors(data, "run")


def test_names_to_choose_from_are_in_the_schema() -> None:
    text = json.dumps(SCHEMAS["run"].schema)
    assert all(f'"{name}"' in text for name in ("ties", "linear", "tpe", "greedy", "seq2seq", "auto"))
    described = SCHEMAS["run"].schema["$defs"]["Arm"]["properties"]
    assert all(field.get("description") for field in described.values())
