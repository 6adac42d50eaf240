"""Proves that the pages that `make docs` adds are complete, that links lead to them, and that faults are found."""

import re
from pathlib import Path
from typing import get_args

import pytest

import lines_sweep
from deploy.site.check import faults
from deploy.site.fields import fields_page
from deploy.site.interface import INTERFACE
from deploy.site.repository import index_links, with_site_links
from pipeline.cli.schemas import schema_of
from pipeline.spec.command_names import Command

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", get_args(Command))
def test_every_field_of_every_model_has_a_row_and_types_link_to_sections(command: Command) -> None:
    sections = re.split(r"^## ", fields_page(command), flags=re.MULTILINE)[1:]
    rows = {text.split("\n")[0]: re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE) for text in sections}
    parts = schema_of(command)["$defs"]
    assert rows == {name: list(part["properties"]) for name, part in parts.items() if not name.startswith("Open")}
    assert {link for text in sections for link in re.findall(r"\(#(\w+)\)", text)} <= {name.lower() for name in rows}


def test_rows_have_type_default_and_meaning() -> None:
    page = fields_page("run")
    assert "| `shard_size` | integer ≥ 1 | `512` | Samples in a shard" in page
    assert "| `arms` | mapping to [Arm](#arm) | none | The models to compare" in page
    assert "| `experts` | mapping to text | required | Fine-tuned checkpoints" in page
    assert "[Merge](#merge) | none | A merge of all experts" in page
    assert "| `score` | `all`, `targets` | `all` |" in page


def test_the_interface_is_documented_in_full() -> None:
    named = {name for page in INTERFACE.values() for name in re.findall(r"^::: (.+)$", page, flags=re.MULTILINE)}
    assert {f"lines_sweep.{name}" for name in lines_sweep.__all__} <= named


def test_links_lead_to_pages_of_the_site() -> None:
    text = "[a](../../examples/paper) [b](../README.md#guides) [c](paper.md) [d](https://x.org)\n```\n[e](f.md)\n```\n"
    expected = "[a](../examples/paper/index.md) [b](../documentation.md#guides) [c](paper.md) [d](https://x.org)"
    assert with_site_links(text, "docs/guides/ppo.md") == f"{expected}\n```\n[e](f.md)\n```\n"
    assert with_site_links("[a](docs/guides/paper.md)", "README.md") == "[a](guides/paper.md)"


def test_the_navigation_has_the_sections_of_the_index() -> None:
    sections = dict(index_links((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert list(sections) == ["Start", "Guides", "Reference", "Internals"]
    assert sections["Start"] == ["start/quickstart.md", "start/your-own-models.md"]


def test_faults_of_a_site_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="top"></h1><a href="b.html#end">b</a><a href="https://x.org">x</a>')
    (tmp_path / "b.html").write_text('<p id="end"><a href="a.html#top">a</a><img src="data:image/png;base64,"></p>')
    assert list(faults(tmp_path)) == []
    (tmp_path / "c.html").write_text(
        '<a href="d.html"></a><a href="a.html#no"></a><a href="#no"></a><script src="//x.org/y.js"></script>'
    )
    assert list(faults(tmp_path)) == [
        "c.html: d.html: no such file",
        "c.html: a.html#no: no such anchor",
        "c.html: #no: no such anchor",
        "c.html: //x.org/y.js: is loaded from another host",
    ]
