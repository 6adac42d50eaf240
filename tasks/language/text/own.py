"""Examples of the user's own files: rows, a template, and which columns hold the choices and the right one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateSyntaxError

from tasks.language.rows import read_rows, split_file
from tasks.language.text.examples import Example
from tasks.language.text.options import Options
from tasks.language.text.templates import own_environment, render
from tasks.registry import near

Row = Mapping[str, Any]
#: Options of rows with choices, and of rows with reference answers.
CHOICE_OPTIONS = ("template", "choices", "label", "labels")
ANSWER_OPTIONS = ("template", "answers")


class OwnRows:
    """Turns rows into examples by the options of the spec."""

    def __init__(self, options: Options, ranked: bool) -> None:
        """Read the options.

        Args:
            options: of the task.
            ranked: whether the rows have choices; else they have answers.

        Raises:
            ValueError: if an option is missing or wrong.
        """
        self._options = options
        self._template = self._compiled("template", options.get("template", str, "{{ prompt }}"))
        self._answers = "" if ranked else options.get("answers", str, "answers")
        self._choices = self._choice_reader() if ranked else None
        self._label = options.get("label", str, "label")
        self._labels: Sequence[Any] = self._listed("labels", options.raw("labels") or ())

    def example(self, row: Row, where: str) -> Example:
        """Return a row's example.

        Raises:
            ValueError: if a column is missing or has the wrong type; the row is named.
        """
        prompt = render(self._template, row, where).strip()
        if self._choices is None:
            return Example(where, prompt, answers=_texts(_column(row, self._answers, where), self._answers, where))
        choices = self._choices(row, where)
        return Example(where, prompt, choices, self._place(row, choices, where))

    def _place(self, row: Row, choices: Sequence[str | None], where: str) -> int:
        """Return the place of the right choice: by number, by the choice's text, or by a name in `labels`."""
        value = _column(row, self._label, where)
        if self._labels:
            if value not in self._labels:
                raise ValueError(f"{where}: {self._label}: must be one of {list(self._labels)}, got {value!r}")
            return self._labels.index(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if value in choices:
            return choices.index(value)
        raise ValueError(f"{where}: {self._label}: must be a choice's place, from 0, or its text, got {value!r:.60}")

    def _choice_reader(self) -> Callable[[Row, str], tuple[str | None, ...]]:
        given = self._options.raw("choices") or "choices"
        if isinstance(given, str):
            return lambda row, where: _choices(_column(row, given, where), given, where)
        made = [self._compiled("choices", text) for text in self._listed("choices", given)]
        return lambda row, where: tuple(render(template, row, where).strip() for template in made)

    def _listed(self, name: str, value: Any) -> Sequence[Any]:
        if not isinstance(value, list | tuple):
            raise self._options.wrong(name, "a column's name, or a list" if name == "choices" else "a list")
        return list(value)

    def _compiled(self, name: str, text: Any) -> Template:
        if not isinstance(text, str):
            raise self._options.wrong(name, "texts")
        try:
            return own_environment().from_string(text)
        except TemplateSyntaxError as error:
            raise ValueError(f"{self._options.where}.{name}: not a Jinja template: {error}") from error


def own_examples(source: str, splits: Mapping[str, int | None], rows: OwnRows) -> dict[str, list[Example]]:
    """Read the splits of a folder with val.jsonl and test.jsonl, or .parquet.

    Args:
        source: the folder.
        splits: split -> number of first rows to use, None for all; a missing file makes an empty split.
        rows: how rows become examples.

    Raises:
        ValueError: if there is no folder, no file of a split, or a row is wrong.
    """
    folder = existing_folder(source)
    found: dict[str, list[Example]] = {}
    for split, limit in splits.items():
        try:
            path = split_file(source, folder, split)
        except ValueError:
            if split == "val":  # sets under `ood` have only test
                found[split] = []
                continue
            raise
        found[split] = [rows.example(row, where) for row, where in placed_rows(path, limit)]
    return found


def existing_folder(source: str) -> Path:
    """Return a folder.

    Raises:
        ValueError: if there is none; near names are suggested.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        others = [p.name for p in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        raise ValueError(f"{source!r} is not a folder with val.jsonl and test.jsonl; {near(folder.name, others)}")
    return folder


def placed_rows(path: Path, limit: int | None) -> list[tuple[Row, str]]:
    """Return the first rows of a file that are objects, each with its place for errors.

    Raises:
        ValueError: if a row is no object.
    """
    found: list[tuple[Row, str]] = []
    for number, row in enumerate(read_rows(path), 1):
        if limit is not None and number > limit:
            break
        where = f"{path}: row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: must be an object of columns, got {row!r:.60}")
        found.append((row, where))
    return found


def _column(row: Row, name: str, where: str) -> Any:
    if row.get(name) is None:
        raise ValueError(f"{where}: has no column {name!r}; {near(name, map(str, row))}")
    return row[name]


def _choices(value: Any, name: str, where: str) -> tuple[str | None, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) or v is None for v in value):
        raise ValueError(f"{where}: {name}: must be a list of texts, got {value!r:.60}")
    return tuple(value)


def _texts(value: Any, name: str, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(v, str) for v in texts):
        raise ValueError(f"{where}: {name}: must be a text or a list of texts, got {value!r:.60}")
    return tuple(texts)
