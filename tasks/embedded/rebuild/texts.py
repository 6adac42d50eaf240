"""Builds the text tasks of ``tasks/embedded/texts`` and the corpus of the small T5, from WordNet and the ICD-10-CM."""

import argparse
import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .icd import Entry, entries, tabular_list
from .wordnet import Synset, WordNet

TEXTS = Path(__file__).parents[1] / "texts"
#: Most rows of a split, and the shares of the keys.
ROWS = {"train": 2000, "val": 300, "test": 600}
_SHARES = {"train": 70, "val": 12, "test": 18}
_WORDS = 24
_SHORTEST = 12

#: Number of an ICD chapter, or first code of a section -> class.
CHAPTERS = {
    1: "infection", 2: "tumour", 7: "eye", 9: "heart", 11: "digestion", 12: "skin", 13: "bone", 15: "pregnancy",
}  # fmt: skip
REGIONS = {
    "S00": "head", "S20": "chest", "S40": "shoulder", "S50": "elbow", "S60": "hand", "S70": "hip", "S80": "knee",
    "S90": "foot",
}  # fmt: skip
NOUNS = {
    "act": "act", "animal": "animal", "artifact": "thing", "person": "person", "location": "place", "plant": "plant",
    "food": "food", "substance": "substance",
}  # fmt: skip
VERBS = {
    "change": "change", "communication": "communication", "contact": "contact", "motion": "motion",
    "possession": "possession", "social": "society", "cognition": "thought", "perception": "perception",
}  # fmt: skip
TOPICS = {
    "law": "law", "military": "war", "music": "music", "chemistry": "chemistry", "computer science": "computers",
    "physics": "physics", "mathematics": "mathematics", "statistics": "mathematics", "baseball": "sport",
    "sport": "sport", "golf": "sport", "football": "sport",
}  # fmt: skip
#: Synsets of WordNet 3.0 -> class.
ANIMALS = {
    "n01503061": "bird", "n02512053": "fish", "n01861778": "mammal", "n02159955": "insect", "n01661091": "reptile",
    "n01627424": "amphibian", "n01940736": "mollusc", "n01974773": "crustacean",
}  # fmt: skip
PEOPLE = {
    "n10560637": "scientist", "n10794014": "writer", "n10339966": "musician", "n10340312": "musician",
    "n10391653": "painter", "n09765278": "actor", "n10450303": "politician", "n10541229": "ruler",
    "n09820263": "athlete",
}  # fmt: skip
PLACES = {
    "n09189411": "Africa", "n09207288": "Asia", "n09275473": "Europe", "n09372504": "North America",
    "n09440400": "South America", "n09211266": "Australia",
}  # fmt: skip
#: The text before the choices.
PROMPTS = {
    "animals": "{}. This animal is a kind of",
    "chapters": "{}. This is a disease of the kind",
    "injuries": "{}. This is an injury of the",
    "nouns": "{}. This is a kind of",
    "people": "{}. This person is a kind of",
    "places": "{}. This place is in",
    "topics": "{}. This is about",
    "verbs": "{}. This verb is about",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A text with its class; texts with the same key share a split."""

    text: str
    label: str
    key: str


def split_of(key: str) -> str:
    """Return the split of a key.

    Example:
        >>> split_of("n01503061")
        'train'
    """
    place = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 100
    for split, share in _SHARES.items():
        place -= share
        if place < 0:
            return split
    raise AssertionError


def medical_rows(codes: Iterable[Entry]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the tasks chapters and injuries; sides (left, right) of one injury share a key."""
    for entry in codes:
        if label := CHAPTERS.get(entry.chapter):
            yield "chapters", Row(entry.text, label, entry.code[:3])
        if label := REGIONS.get(entry.first):
            yield "injuries", Row(entry.text, label, entry.code[:5])


def word_rows(words: WordNet) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the other tasks; texts that fit two classes of a task are left out."""
    for synset in words.synsets.values():
        for task, labels in _labels(words, synset).items():
            if len(labels) == 1:
                yield task, Row(synset.definition, labels.pop(), synset.key)


def _labels(words: WordNet, synset: Synset) -> dict[str, set[str]]:
    found = {"topics": {TOPICS[t] for t in words.topics(synset) if t in TOPICS}}
    if synset.part_of_speech == "n":
        above = words.ancestors(synset.key)
        found["nouns"] = {NOUNS[synset.category]} if synset.category in NOUNS else set()
        found["animals"] = {ANIMALS[key] for key in above if key in ANIMALS}
        found["people"] = {PEOPLE[key] for key in above if key in PEOPLE}
        found["places"] = {PLACES[key] for key in words.wholes(synset.key) if key in PLACES}
    if synset.part_of_speech == "v":
        found["verbs"] = {VERBS[synset.category]} if synset.category in VERBS else set()
    return found


def divided(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Shorten texts, drop repeated ones, and return at most ROWS of each split, from the classes in turn."""
    stacks: dict[tuple[str, str], list[Row]] = defaultdict(list)
    seen: set[str] = set()
    for row in sorted(rows, key=lambda row: (hashlib.sha256(row.key.encode()).digest(), row.text)):
        text = shortened(row.text)
        if len(text) >= _SHORTEST and text.lower() not in seen:
            seen.add(text.lower())
            stacks[split_of(row.key), row.label].append(Row(text, row.label, row.key))
    ordered = sorted(stacks.items())
    return {split: _balanced([rows for (of, _), rows in ordered if of == split], most) for split, most in ROWS.items()}


def shortened(text: str) -> str:
    """Return the first words of a text in one line, without a final dot."""
    return " ".join(re.sub(r"[`]", "'", text).split()[:_WORDS]).rstrip(" .;,:")


def _balanced(stacks: Sequence[list[Row]], most: int) -> list[Row]:
    chosen = [row for turn in range(most) for stack in stacks for row in stack[turn : turn + 1]][:most]
    random.Random(0).shuffle(chosen)
    return chosen


def documents(words: WordNet, codes: Iterable[Entry], held_out: set[str]) -> Iterator[str]:
    """Yield the corpus: what each synset and code says and what it is a kind of, without the texts in `held_out`."""
    for synset in words.synsets.values():
        if shortened(synset.definition).lower() not in held_out:
            above = [words.synsets[k].words[0] for kind in ("@", "@i", "#p") for k in synset.pointers.get(kind, ())]
            kinds = f". This is a kind of {', '.join(above)}" if above else ""
            topics = f". This is about {', '.join(words.topics(synset))}" if words.topics(synset) else ""
            yield f"{', '.join(synset.words)}: {synset.definition}{kinds}{topics}"
    for entry in codes:
        if shortened(entry.text).lower() not in held_out:
            yield f"{entry.text}. This is a kind of {entry.section}"


def write(tasks: Mapping[str, Mapping[str, Sequence[Row]]], target: Path) -> None:
    """Write one folder a task, one file a split."""
    for name, splits in tasks.items():
        choices = sorted({row.label for row in splits["train"]})
        (target / name).mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            table = pa.table(
                {
                    "text": [row.text for row in rows],
                    "prompt": [PROMPTS[name].format(row.text) for row in rows],
                    "choices": [choices] * len(rows),
                    "label": [row.label for row in rows],
                }
            )
            pq.write_table(table, target / name / f"{split}.parquet", compression="zstd", compression_level=19)


def main() -> None:
    """Write the tasks, and ``DIR/corpus.txt``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--icd", type=Path, help="the tabular list, instead of the installed package's")
    args = parser.parse_args()
    words = WordNet(args.work / "src/deb/usr/share/wordnet")
    codes = list(entries(args.icd or tabular_list()))
    rows: dict[str, list[Row]] = defaultdict(list)
    for task, row in (*medical_rows(codes), *word_rows(words)):
        rows[task].append(row)
    tasks = {task: divided(some) for task, some in sorted(rows.items())}
    write(tasks, TEXTS)
    for name, splits in tasks.items():
        print(name, {split: len(some) for split, some in splits.items()}, Counter(r.label for r in splits["test"]))
    held_out = {row.text.lower() for splits in tasks.values() for s in ("val", "test") for row in splits[s]}
    lines = [" ".join(line.split()) for line in documents(words, codes, held_out)]
    (args.work / "corpus.txt").write_text("".join(line + "\n" for line in lines))


if __name__ == "__main__":
    main()
