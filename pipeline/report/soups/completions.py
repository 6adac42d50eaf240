"""The completions of a run of rewards, from completions.parquet, and two signs of reward hacking in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import pyarrow.compute as pc

from pipeline.records import tables
from pipeline.report.data.run import CandidateRow
from pipeline.report.soups.scene import SoupScene

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Shares:
    """How varied a candidate's completions are.

    Attributes:
        distinct: the share of the prompts' first completions that differ.
        repeated: the share of a completion's words that occurred earlier in it; the mean over completions.
    """

    distinct: float
    repeated: float


@dataclass(frozen=True)
class SplitCompletions:
    """All completions of one split.

    Attributes:
        prompts, references: one a prompt, in the order of the outcomes; "" if unknown.
        texts: recipe id -> completions, prompt by prompt, in the order of the outcomes.
        draws: completions of each prompt.
    """

    prompts: Sequence[str]
    references: Sequence[str]
    texts: Mapping[str, Sequence[str]]
    draws: int

    @cached_property
    def shares(self) -> Mapping[str, Shares]:
        """Recipe id -> how varied its completions are."""
        return {recipe_id: _shares(texts, self.draws) for recipe_id, texts in self.texts.items()}

    def first(self, candidate: CandidateRow, prompt: int) -> str | None:
        """Return a candidate's first completion of a prompt, or None."""
        texts = self.texts.get(candidate.recipe_id)
        return None if texts is None else texts[prompt * self.draws]


def read_completions(scene: SoupScene) -> SplitCompletions | None:
    """Return the completions of the scene's split; None if the run has none.

    Raises:
        ValueError: if the file has another schema version.
    """
    path = scene.run.folder / "completions.parquet"
    if not path.exists():
        return None
    table = tables.read(path, tables.COMPLETIONS)
    table = table.filter(pc.equal(table["split"], scene.split))
    table = table.sort_by([("recipe_id", "ascending"), ("index", "ascending")])
    texts: dict[str, list[str]] = {}
    for recipe_id, text in zip(table["recipe_id"].to_pylist(), table["completion"].to_pylist(), strict=True):
        texts.setdefault(recipe_id, []).append(text)
    # An interrupted run may hold parts of some candidates.
    whole = {recipe_id: found for recipe_id, found in texts.items() if len(found) == scene.prompts * scene.draws}
    if not whole:
        return None
    one = table.filter(pc.equal(table["recipe_id"], next(iter(whole))))
    prompts, references = (one[name].to_pylist()[:: scene.draws] for name in ("prompt", "reference"))
    return SplitCompletions(prompts, references, whole, scene.draws)


def _shares(texts: Sequence[str], draws: int) -> Shares:
    firsts = texts[::draws]
    return Shares(len(set(firsts)) / len(firsts), fmean(map(repeated_words, texts)))


def repeated_words(text: str) -> float:
    """Return the share of a text's words that occurred earlier in it; 0 for a text without words."""
    words = _WORD.findall(text.lower())
    return 1 - len(set(words)) / len(words) if words else 0.0
