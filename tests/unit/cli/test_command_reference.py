"""Proves that docs/reference/commands.md has a section for every command, with exactly its options."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pipeline.cli.main import app

DOCUMENT = (Path(__file__).parents[3] / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
    else:
        for child, value in command.commands.items():
            yield from commands(value, f"{name} {child}")


COMMANDS = dict(commands(get_command(app), "lines"))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_section_of_a_command_has_its_options(name: str) -> None:
    section = DOCUMENT.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    shown = [option for cell in cells for option in re.findall(r"`([^`]+)`", cell)]
    parameters = COMMANDS[name].params
    arguments = [p.metavar for p in parameters if p.param_type_name == "argument"]
    options = [o for p in parameters if p.param_type_name == "option" for o in (*p.opts, *p.secondary_opts)]
    assert sorted(shown) == sorted(arguments + options)


def test_every_section_is_a_command() -> None:
    assert set(re.findall(r"^## (.+)$", DOCUMENT, flags=re.MULTILINE)) == set(COMMANDS)
