"""Tables: completions of a few prompts along lambda, for the plain soup and the LiNeS arm side by side."""

import textwrap
from collections.abc import Sequence

import numpy as np

from pipeline.report.data.arms import opponents
from pipeline.report.data.clouds import Cloud
from pipeline.report.data.run import CandidateRow
from pipeline.report.soups.completions import SplitCompletions
from pipeline.report.soups.scene import SoupScene
from pipeline.report.tables.table import NONE, Table, TableCell

SHOWN = 3
#: Points of an arm that a table shows, evenly spread.
POINTS = 11
#: Characters after which a prompt and a completion are cut.
_PROMPT, _COMPLETION = 700, 400


def shown_prompts(prompts: int) -> list[int]:
    """Return the prompts in the middle of each third: they are in order of length, and none is picked by hand."""
    return sorted({(2 * i + 1) * prompts // (2 * SHOWN) for i in range(SHOWN)})


def sample_tables(scene: SoupScene, completions: SplitCompletions) -> list[Table]:
    """Return one table for each shown prompt; none if no soup has completions."""
    soups = _side_by_side(scene)
    known = any(c.recipe_id in completions.texts for soup in soups for c in soup.candidates)
    return [_table(scene, completions, soups, prompt) for prompt in shown_prompts(scene.prompts)] if known else []


def cut(text: str, length: int) -> str:
    """Return the text in one line, with at most `length` characters."""
    return textwrap.shorten(text, length, placeholder=" …") if len(text) > length else " ".join(text.split())


def _side_by_side(scene: SoupScene) -> list[Cloud]:
    """The plain soup and the first LiNeS arm; without one, the first two arms."""
    by_name = {soup.arm.name: soup for soup in scene.soups}
    leader = next((soup for soup in scene.soups if soup.arm.role == "lines"), None)
    if leader is None:
        return list(scene.soups[:2])
    plain = [arm for arm in opponents(leader.arm, [s.arm for s in scene.soups]) if arm.role == "plain"]
    return [*(by_name[arm.name] for arm in plain[:1]), leader]


def _table(scene: SoupScene, completions: SplitCompletions, soups: Sequence[Cloud], prompt: int) -> Table:
    columns = [dict(zip(soup.labels, soup.candidates, strict=True)) for soup in soups]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    picked = np.unique(np.linspace(0, len(labels) - 1, min(POINTS, len(labels))).round().astype(int))
    rows = [
        (
            TableCell(labels[i] or NONE, tone="lead"),
            *(_completion(scene, completions, column.get(labels[i]), prompt) for column in columns),
        )
        for i in picked
    ]
    title = f"Prompt {prompt + 1} of {scene.prompts}"
    return Table(title, _note(scene, completions, prompt), ("point", *(soup.arm.name for soup in soups)), tuple(rows))


def _note(scene: SoupScene, completions: SplitCompletions, prompt: int) -> str:
    """The prompt, its reference and the SFT model's completion, as far as they are known."""
    found = []
    if completions.prompts[prompt]:
        found.append(f"Prompt: “{cut(completions.prompts[prompt], _PROMPT)}”")
    if completions.references[prompt]:
        found.append(f"Reference: “{cut(completions.references[prompt], _COMPLETION)}”")
    sft = None if scene.sft is None else _completion(scene, completions, scene.sft.candidates[0], prompt)
    if sft is not None and sft.detail:
        found.append(f"SFT model: {sft.text} ({sft.detail})")
    return " ".join(found)


def _completion(
    scene: SoupScene, completions: SplitCompletions, candidate: CandidateRow | None, prompt: int
) -> TableCell:
    text = None if candidate is None else completions.first(candidate, prompt)
    if candidate is None or text is None:
        return TableCell(NONE)
    values = []
    for reward in scene.rewards:
        outcomes, units = scene.outcomes(candidate, reward), scene.units(reward)
        values += (
            [] if outcomes is None else [f"{reward} {units.number(float(outcomes[prompt * scene.draws]))}{units.sign}"]
        )
    return TableCell(f"“{cut(text, _COMPLETION)}”", ", ".join(values))
