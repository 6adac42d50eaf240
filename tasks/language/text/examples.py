"""Examples of text tasks: a prompt with choices to rank, or with reference answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.files.cache import digest


@dataclass(frozen=True, slots=True)
class Example:
    """One sample.

    Attributes:
        where: its file and row, for errors.
        prompt: the text before the choices.
        choices: the texts to rank; None is a place without a choice, which is never chosen.
        label: place of the right choice.
        answers: references of a generated answer, for a task without choices.
    """

    where: str
    prompt: str
    choices: tuple[str | None, ...] = ()
    label: int = 0
    answers: tuple[str, ...] = ()


def fingerprint(splits: Mapping[str, Sequence[Example]], how: Sequence[object]) -> str:
    """Return the content hash of all examples and of how they are scored."""
    return digest(_parts(splits, how))[:16]


def _parts(splits: Mapping[str, Sequence[Example]], how: Sequence[object]) -> Iterator[str]:
    yield repr(tuple(how))
    for split, examples in sorted(splits.items()):
        yield split
        for example in examples:
            yield repr((example.prompt, example.choices, example.label, example.answers))


def check_choices(example: Example) -> None:
    """Require two different choices or more, the right one among them.

    Raises:
        ValueError: if there are fewer, one is empty, some repeat, or the label names none; the row is named.
    """
    texts = [choice for choice in example.choices if choice is not None]
    if len(texts) < 2:
        raise ValueError(f"{example.where}: must have two choices or more, got {texts}")
    if any(not text.strip() for text in texts):
        raise ValueError(f"{example.where}: a choice is empty: {texts}; use null for a place without a choice")
    if not 0 <= example.label < len(example.choices) or example.choices[example.label] is None:
        raise ValueError(f"{example.where}: its label is {example.label}, which is the place of none of {texts}")


def repeats(example: Example) -> list[str]:
    """Return the choices that are there more than once."""
    texts = [choice for choice in example.choices if choice is not None]
    return sorted({text for text in texts if texts.count(text) > 1})
