"""Reads WordNet's data files (Debian's ``wordnet-base``): glosses, categories and the pointers between synsets."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

#: Lexicographer files 3 to 28 are nouns, 29 to 43 verbs (lexnames(5WN)).
_NOUNS = (
    "top act animal artifact attribute body cognition communication event feeling food group location motive object "
    "person phenomenon plant possession process quantity relation shape state substance time"
)
_VERBS = (
    "body change cognition communication competition consumption contact creation emotion motion perception possession "
    "social stative weather"
)
_CATEGORIES = ["adjective", "adjective", "adverb", *_NOUNS.split(), *_VERBS.split(), "adjective"]
_FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_UP, _INSTANCE, _PART, _TOPIC = "@", "@i", "#p", ";c"


@dataclass(frozen=True, slots=True)
class Synset:
    """A meaning.

    Attributes:
        key: part of speech and offset, unique.
        words: that have this meaning.
        category: name of its lexicographer file.
        definition: its gloss without the examples.
        pointers: kind -> keys of other synsets.
    """

    key: str
    words: tuple[str, ...]
    category: str
    definition: str
    pointers: Mapping[str, tuple[str, ...]]

    @property
    def part_of_speech(self) -> str:
        """Return n, v, a or r."""
        return self.key[0]


class WordNet:
    """All synsets of a folder."""

    def __init__(self, folder: Path) -> None:
        """Read the four data files."""
        self.synsets = {s.key: s for kind, name in _FILES.items() for s in _read(folder / f"data.{name}", kind)}

    def ancestors(self, key: str) -> set[str]:
        """Return the keys of everything that a synset is a kind or an instance of."""
        return self._closure(key, (_UP, _INSTANCE))

    def wholes(self, key: str) -> set[str]:
        """Return the keys of everything that a place is a part of."""
        return self._closure(key, (_PART,))

    def topics(self, synset: Synset) -> list[str]:
        """Return the first words of the topics of a synset."""
        return [self.synsets[key].words[0] for key in synset.pointers.get(_TOPIC, ())]

    def _closure(self, key: str, kinds: tuple[str, ...]) -> set[str]:
        found: set[str] = set()
        open_keys = [key]
        while open_keys:
            synset = self.synsets[open_keys.pop()]
            for above in (k for kind in kinds for k in synset.pointers.get(kind, ())):
                if above not in found:
                    found.add(above)
                    open_keys.append(above)
        return found


def _read(path: Path, kind: str) -> Iterator[Synset]:
    for line in path.read_text(encoding="latin-1").splitlines():
        if not line.startswith("  "):
            yield _synset(line, kind)


def _synset(line: str, kind: str) -> Synset:
    fields, _, gloss = line.partition(" | ")
    parts = fields.split()
    count = int(parts[3], 16)
    words = tuple(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in parts[4 : 4 + 2 * count : 2])
    pointers: dict[str, tuple[str, ...]] = {}
    start = 5 + 2 * count
    for k in range(int(parts[4 + 2 * count])):
        symbol, offset, other, _ = parts[start + 4 * k : start + 4 * k + 4]
        pointers[symbol] = (*pointers.get(symbol, ()), other.replace("s", "a") + offset)
    definition = re.split(r"; \"", gloss)[0].strip().rstrip(";")
    return Synset(kind + parts[0], words, _CATEGORIES[int(parts[1])], definition, pointers)
