"""Reads the ICD-10-CM (the tabular list inside PyPI's ``simple-icd-10-cm``): descriptions with their place in it."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """A description of a code.

    Attributes:
        code: such as S40.011A.
        text: its description, or another name of the same.
        section: description of its section.
        chapter: number of its chapter, 1 to 22.
        first: first code of its section.
    """

    code: str
    text: str
    section: str
    chapter: int
    first: str


def tabular_list() -> Path:
    """Return the file in the installed package, which is not imported."""
    spec = find_spec("simple_icd_10_cm")
    assert spec is not None and spec.submodule_search_locations
    return next((Path(spec.submodule_search_locations[0]) / "data").glob("icd10c-tabular-*.xml"))


def entries(path: Path) -> Iterator[Entry]:
    """Yield the descriptions and the inclusion terms of every code."""
    for chapter in ElementTree.parse(path).getroot().iter("chapter"):
        for section in chapter.findall("section"):
            yield from _of_section(section, int(_text(chapter, "name")))


def _of_section(section: ElementTree.Element, chapter: int) -> Iterator[Entry]:
    title = _text(section, "desc").rpartition(" (")[0]
    first = section.attrib["id"].partition("-")[0]
    for code in section.iter("diag"):
        names = [_text(code, "desc"), *(note.text or "" for note in code.findall("inclusionTerm/note"))]
        for name in names:
            yield Entry(_text(code, "name"), name, title, chapter, first)


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(name) or ""
