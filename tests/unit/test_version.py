"""Proves that the version has one place, pyproject.toml: what is installed, cited, released and deployed agrees."""

import re
import tomllib
from pathlib import Path

from typer.testing import CliRunner

import lines_sweep as lines
from pipeline.cli.main import app

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_command_and_package_have_the_version_of_pyproject() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"lines-sweep {VERSION}\n"
    assert lines.__version__ == VERSION


def test_citation_changelog_and_image_tags_have_it() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    released = re.findall(r"^## (\d\S*) - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == VERSION
    files = [
        path for top in ("deploy", "docs") for path in (ROOT / top).rglob("*") if path.suffix not in (".png", ".pyc")
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in files if path.is_file()}
    tags = {(path, tag) for path, text in texts.items() for tag in re.findall(r"lines-sweep:(\d[\w.]*)", text)}
    assert len(tags) > 2 and {tag for _, tag in tags} == {VERSION}
