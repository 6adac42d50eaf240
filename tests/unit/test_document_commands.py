"""Proves that every command of the README and the documents is one, with options and files that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import PAGES, ROOT, Block, commands, mentions, prose
from merge_command import save
from safetensors.torch import load_file
from typer.main import get_command
from typer.testing import CliRunner

from pipeline.cli.main import app

TOP = get_command(app)
COMMANDS = [(block, words) for block, words in commands()]
OURS = [(block, words) for block, words in COMMANDS if words[0] == "lines"]
#: Files of readers -> the page that introduces them, outside commands.
THEIRS = {
    "first.yaml": "docs/start/quickstart.md",
    "my-sweep.yaml": "docs/reference/commands.md",
    "your-own-models.yaml": "docs/start/your-own-models.md",
    "soups.yaml": "docs/guides/rewarded-soups.md",
    "spec.yaml": "docs/guides/clusters.md",
    "mergekit.yml": "docs/guides/mergekit.md",
}
#: Written by commands.
MADE = {"lines.yml", "regress.xml"}
#: Options of `lines merge` that need more than weights.
MORE = {"--recipe", "--statistics", "--recalibrate"}
SUFFIXES = (".yaml", ".yml", ".sh", ".sbatch", ".xml", ".txt", ".json")


def found(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that `lines WORDS` names, and the other words."""
    command, rest = TOP, [word for word in words if word not in ("-q", "-v")]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands or name == "COMMAND", f"no command {name}"
        command = command.commands.get(name, command)
    return command, rest


@pytest.mark.parametrize(("block", "words"), OURS, ids=[" ".join(words) for _, words in OURS])
def test_commands_of_blocks_are_parsed_by_the_command_line(block: Block, words: list[str]) -> None:
    command, rest = found(words[1:])
    assert not hasattr(command, "commands"), f"{block}: a command is missing"
    command.make_context("lines", rest)


def test_mentions_of_commands_have_options_that_exist() -> None:
    wrong = []
    for page, words in mentions():
        command, rest = found(words[1:])
        known = {"-h", "--help"} | {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        wrong += [(page.name, words) for word in rest if re.match(r"--?\w", word) and word.split("=")[0] not in known]
    assert wrong == []


def test_files_of_commands_exist_or_are_the_readers_own() -> None:
    named = {(str(b), path) for b, words in COMMANDS for word in words for path in [word.rpartition("=")[2]]}
    files = {(block, path) for block, path in named if path.endswith(SUFFIXES) and "://" not in path}
    ours = {(block, path) for block, path in files if path not in {*THEIRS, *MADE} and not path.startswith("trial/")}
    assert len(ours) >= 10
    assert [(block, path) for block, path in ours if not (ROOT / path).is_file()] == []


def test_files_of_readers_are_introduced() -> None:
    used = {word for _, words in COMMANDS for word in words if word in THEIRS}
    assert used == set(THEIRS)
    pages = {name: (ROOT / page).read_text(encoding="utf-8") for name, page in THEIRS.items()}
    without = {name: re.sub(r"^```console.*?^```", "", text, flags=re.DOTALL | re.M) for name, text in pages.items()}
    assert [name for name, text in without.items() if name not in text] == []


def test_targets_of_make_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = [words[1] for _, words in COMMANDS if words[0] == "make"]
    named += [name for page in PAGES for name in re.findall(r"`make ([\w-]+)`", prose(page))]
    assert len(named) > 10 and set(named) <= set(targets)


def test_every_command_is_in_a_block() -> None:
    lines = [(page.name, line) for page in PAGES for line in re.findall(r"^    lines .*", prose(page), re.MULTILINE)]
    assert lines == []


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["init"], ["schema", "run"]], ids=" ".join)
def test_mentioned_commands_without_files_work(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [named for _, named in mentions() if named == ["lines", *words]]
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, words).exit_code == 0


MERGES = [words for _, words in OURS if words[1] == "merge" and not MORE & set(words) and "hf:" not in " ".join(words)]


@pytest.mark.parametrize("words", [words for words in MERGES if "." in words[-1]], ids=" ".join)
def test_merges_of_weights_are_executed(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = "layer{}.weight" if "--blocks" in words else "blocks.{}.attn.qkv.weight"
    sources = [words[i + 1] for i, word in enumerate(words) if word in ("--base", "--expert")]
    for i, source in enumerate(sources):
        place = Path(source, "model.safetensors") if source.endswith("/") else Path(source)
        place.parent.mkdir(exist_ok=True)
        state = {names.format(block): torch.arange(6.0).reshape(2, 3) * i for block in range(3)}
        save(state | ({"classifier.weight": torch.full((1, i + 2), 1.0)} if "--exclude" in words else {}), place)
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    merged = load_file(words[-1] if words[-2] == "-o" else words[words.index("-o") + 1])
    assert len(merged) == 3 + ("--exclude" in words)
