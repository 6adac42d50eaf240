"""Prompts from Debian's indices: a package's long description, and its maintainer's synopsis.

Pure functions from the text of `Translation-en` and `Packages` indices to rows.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

#: Lengths in characters of usable long descriptions and synopses.
LONG = range(120, 1201)
SHORT = range(12, 81)
#: Percentages of the source packages; the rest is test.
_TRAIN, _VAL = 84, 4
#: Texts count as equal if this many of their first letters agree (gcc-11 and gcc-12).
_SAME = 160

_BOILERPLATE = re.compile(
    r"This (is a )?(dummy|transitional|empty|package (contains|provides|includes|installs|ships|is))"
    r"|The package (contains|provides)|This metapackage enables feature"
)
_PLACEHOLDER = re.compile(r"transitional|dummy", re.IGNORECASE)
_PART = re.compile(
    r"\s*[(\-–]+\s*(documentation|development (files|headers|libraries)|shared libr\w+|headers|debug\w*|common files"
    r"|data files|data|runtime|plugins?|utilities|examples|library|libraries|tools|headers? files?)\)?$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Description:
    """A package's description in the index."""

    package: str
    synopsis: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the prompt set.

    Attributes:
        package: name of the binary package.
        origin: name of its source package.
        source: the long description in one line, without paragraphs that only list the contents.
        reference: the synopsis, without a closing "(documentation)" or "- shared library".
    """

    package: str
    origin: str
    source: str
    reference: str

    def row(self) -> dict[str, str]:
        """Return the content of a line of the JSON files."""
        return {"source": self.source, "reference": self.reference, "package": self.package}


def descriptions(text: str) -> Iterator[Description]:
    """Read a `Translation-en` index; stanzas without an English description are skipped."""
    for stanza in text.split("\n\n"):
        package, field = _field(stanza, "Package"), _field(stanza, "Description-en")
        if package and field:
            synopsis, *lines = field.split("\n")
            yield Description(package, synopsis.strip(), tuple(_paragraphs(lines)))


def sources(text: str) -> dict[str, str]:
    """Read a `Packages` index: binary package -> its source package."""
    found = {}
    for stanza in text.split("\n\n"):
        package = _field(stanza, "Package")
        if package:
            # "Source: name (version)" if the versions differ; the field is missing if the names are the same.
            found[package] = (_field(stanza, "Source") or package).split(" ")[0]
    return found


def pairs(found: Iterable[Description], origins: Mapping[str, str]) -> list[Pair]:
    """Return the usable pairs, each package, text and synopsis once, sorted by a hash of the package's name.

    Packages that are not in `origins`, and dummy and transitional ones, are left out. The choice among equal ones does
    not depend on the order of `found`.
    """
    kept: list[Pair] = []
    seen: set[tuple[str, str]] = set()
    for item in sorted(found, key=lambda one: (one.package, one.synopsis, one.paragraphs)):
        pair = _pair(item, origins)
        if pair is None:
            continue
        marks = {("package", pair.package), ("source", _same(pair.source)), ("reference", _same(pair.reference))}
        if not marks & seen:
            seen |= marks
            kept.append(pair)
    return sorted(kept, key=lambda pair: _digest(pair.package))


def split_of(origin: str) -> str:
    """Return the split of a source package's packages, "train", "val" or "test", by a hash of its name."""
    place = int(_digest(origin)[:8], 16) % 100
    return "train" if place < _TRAIN else "val" if place < _TRAIN + _VAL else "test"


def _pair(item: Description, origins: Mapping[str, str]) -> Pair | None:
    source = re.sub(r"\s+", " ", " ".join(text for text in item.paragraphs if not _BOILERPLATE.match(text)))
    reference = _PART.sub("", item.synopsis).strip()
    if item.package not in origins or _PLACEHOLDER.search(item.synopsis):
        return None
    if len(source) not in LONG or len(item.synopsis) not in SHORT or len(reference) not in SHORT:
        return None
    return Pair(item.package, origins[item.package], source, reference)


def _field(stanza: str, name: str) -> str:
    match = re.search(rf"^{name}: *(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
    return match[1] if match else ""


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    current: list[str] = []
    for line in (*lines, "."):
        text = line.strip()
        if text != ".":
            current.append(text)
        elif current:
            yield " ".join(current)
            current = []


def _same(text: str) -> str:
    return re.sub(r"[\W\d_]", "", text.lower())[:_SAME]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
