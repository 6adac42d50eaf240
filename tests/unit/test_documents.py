"""Proves that every link and anchor of the documents, and every page that code and examples name, exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from documents import PAGES, ROOT, prose

from pipeline.merging.methods import METHODS
from pipeline.merging.scaling import SCALINGS
from search.samplers import SAMPLERS

#: A command, and a message of Ray.
NOT_OURS = {"lines run --address", "No available agent"}
TEXTS = {".py", ".yaml", ".yml", ".j2", ".sh", ".md"}
DATA = ROOT / "tests" / "data"
DECISIONS = ROOT / "docs" / "internals" / "decisions"
FOLDERS = [
    ROOT / name for name in ("lines_sweep", "pipeline", "tasks", "search", "tests", "benchmarks", "examples", "deploy")
]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def missing(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return not target.exists() or bool(anchor and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    assert [link for link in links if "://" not in link and missing(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lists_begin_after_an_empty_line_as_the_site_needs(page: Path) -> None:
    lines = re.sub(r"^( *)```.*?^ *```", r"\1text", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    item = r"(?:[-*]|\d+\.) "
    glued = re.findall(rf"^(?!\s*$|{item}|  +\S)(.+)\n{item}", lines, flags=re.MULTILINE)
    assert glued + re.findall(rf"^ +text\n{item}", lines, flags=re.MULTILINE) == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)\s#]+)", prose(index))}
    pages = {p for p in (ROOT / "docs").rglob("*.md") if p.parent != DECISIONS or p.name == "README.md"}
    assert pages - linked - {index} == set()


def test_every_decision_is_in_its_index() -> None:
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in DECISIONS.glob("0*.md") if f"({p.name})" not in index] == []


@pytest.mark.checkout
def test_every_package_is_described_in_the_architecture() -> None:
    text = (ROOT / "docs" / "internals" / "architecture.md").read_text(encoding="utf-8")
    packages = [p.parent.name for p in (ROOT / "pipeline").glob("*/__init__.py")]
    assert [name for name in packages if f"| `{name}/` |" not in text] == []


@pytest.mark.checkout
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_source_files_named_by_pages_exist(page: Path) -> None:
    tests = {p.name for p in (ROOT / "tests").rglob("*.py")}
    named = set(re.findall(r"`([\w/]+\.py)`", prose(page)))
    roots = (ROOT, ROOT / "pipeline", page.parent)
    exists = {name for name in named if "NAME" in name or any((root / name).exists() for root in roots)}
    assert {name for name in named - exists - tests if "/" in name or name.startswith("test_")} == set()


def test_reference_pages_name_every_method_scaling_and_sampler() -> None:
    names = {"methods": METHODS, "merging": SCALINGS, "spec": SAMPLERS}
    pages = {page: (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8") for page in names}
    assert [name for page in names for name in names[page] if f"`{name}`" not in pages[page]] == []


@pytest.mark.checkout
def test_pages_named_by_code_and_examples_exist() -> None:
    files = [p for folder in FOLDERS for p in folder.rglob("*") if p.suffix in TEXTS and DATA not in p.parents] + [
        p for p in ROOT.iterdir() if p.is_file()
    ]
    named = {(f, page) for f in files for page in re.findall(r"\bdocs/[\w/-]+\.\w+", f.read_text(encoding="utf-8"))}
    assert [(f, page) for f, page in named if not (ROOT / page).exists()] == []


@cache
def literals() -> str:
    """Every string of the source, with white space as one blank; expressions of f-strings are left out."""
    files = [p for folder in (ROOT / "pipeline", ROOT / "tasks") for p in folder.rglob("*.py")]
    nodes = [node for p in files for node in ast.walk(ast.parse(p.read_text(encoding="utf-8")))]
    joined = [node.values for node in nodes if isinstance(node, ast.JoinedStr)]
    texts = ["".join(str(v.value) for v in values if isinstance(v, ast.Constant)) for values in joined]
    plain = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return " ".join("\n".join([*texts, *plain]).split())


@pytest.mark.checkout
@pytest.mark.parametrize("guide", ["clusters", "storage"])
def test_messages_that_a_guide_explains_are_those_of_the_code(guide: str) -> None:
    text, source = (ROOT / "docs" / "guides" / f"{guide}.md").read_text(encoding="utf-8"), literals()
    rows = text.split("| message | what to do |")[1].splitlines()
    quoted = [message for row in rows for message in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    parts = [part.strip(" :()") for message in quoted for part in re.split(r"\.\.\.|URL|FOLDER|--out", message)]
    assert [part for part in parts if part not in source and part not in NOT_OURS] == []
