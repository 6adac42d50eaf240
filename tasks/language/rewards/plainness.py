"""Plain wording as a reward: how common a completion's words are in a corpus."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.files.cache import digest
from tasks.language.base import Sample
from tasks.language.rewards.config import RewardConfig
from tasks.registry import near

if TYPE_CHECKING:
    import torch

_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*|\d+")
_SUFFIXES = (".jsonl", ".txt")
_COLUMNS = ("source", "reference")
#: Occurrences of a word that is not in the corpus: fewer than of any word that is.
_UNKNOWN = 0.5


class Plainness(RewardConfig):
    """Options of `reward/plainness`."""

    corpus: str = "embedded/packages"
    """Where words are counted: a .txt file; a .jsonl file whose rows have `source`, `reference` or both; or a folder:
    its train.jsonl, or else all its .txt and .jsonl files."""

    def fingerprint(self) -> str:
        """Hash the corpus."""
        return digest(["plainness", *(path.read_bytes() for path in _files(self.corpus))])

    def load(self, device: "torch.device") -> "PlainnessReward":
        """Count the corpus; there is no model, so the device does not matter."""
        words = Counter(word for path in _files(self.corpus) for text in _texts(path) for word in _words(text))
        if not words:
            raise ValueError(f"options.corpus: {self.corpus}: holds no words")
        return PlainnessReward(words, self.fingerprint())


class PlainnessReward:
    """The mean over a completion's words of log10(occurrences per million words of the corpus).

    Common words score high, names and jargon low; case is ignored. Words that are not in the corpus, and completions
    without words, score like half an occurrence.
    """

    def __init__(self, words: Counter[str], fingerprint: str) -> None:
        """Take the counts of a corpus, at least one word."""
        total = words.total()
        self.fingerprint = fingerprint
        self.floor = math.log10(_UNKNOWN / total * 1e6)
        self._scores = {word: math.log10(count / total * 1e6) for word, count in words.items()}

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Return one mean a completion; prompts are ignored."""
        return [self._mean(_words(sample.completion)) for sample in samples]

    def _mean(self, words: Sequence[str]) -> float:
        if not words:
            return self.floor
        return math.fsum(self._scores.get(word, self.floor) for word in words) / len(words)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _files(corpus: str) -> list[Path]:
    """Return the files of a corpus in a fixed order.

    Raises:
        ValueError: if there are none.
    """
    path = Path(corpus).expanduser()
    if path.is_file() and not corpus.startswith("embedded/"):
        if path.suffix not in _SUFFIXES:
            raise ValueError(f"options.corpus: {corpus}: must be a .txt or .jsonl file, or a folder of them")
        return [path]
    folder = _folder(corpus)
    train = folder / "train.jsonl"
    files = [train] if train.is_file() else sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES)
    if not files:
        raise ValueError(f"options.corpus: {corpus}: holds no .txt or .jsonl file")
    return files


def _folder(corpus: str) -> Path:
    from tasks.language.models import model_folder  # it imports torch, which a corpus in a file does not need

    try:
        return model_folder(corpus)
    except ValueError as error:
        raise ValueError(f"options.corpus: {error}") from error


def _texts(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        yield text
        return
    for number, line in enumerate(text.split("\n"), 1):  # never splitlines(): texts may hold U+2028
        if line.strip():
            yield from _row(f"options.corpus: {path}: row {number}", line)


def _row(where: str, line: str) -> Iterable[str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be an object with {' or '.join(_COLUMNS)}, got {line[:60]!r}")
    texts = [row[column] for column in _COLUMNS if isinstance(row.get(column), str)]
    if not texts:
        raise ValueError(f"{where}: no text in {' or '.join(_COLUMNS)}; {near(_COLUMNS[0], row)}")
    return texts
