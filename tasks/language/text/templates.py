"""Templates that turn a row into an example: the user's own, or files of promptsource (Bach et al., 2022).

promptsource's texts are read from its installed package, or from a folder of its files; nothing of it is imported, as
it supports no current Python.
"""

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, Template, TemplateError, Undefined
from jinja2.sandbox import SandboxedEnvironment

from tasks.registry import near

#: Separates the parts of promptsource's templates, and stands for itself in a row's texts.
_BAR, _PROTECTED = "|||", "3ed2dface8203c4c9dfb1a5dc58e41e0"
#: promptsource cuts every text that a template inserts to this many characters, at a word.
_LONGEST_TEXT = 2048

Row = Mapping[str, Any]


def own_environment() -> Environment:
    """Return the environment of the user's templates: a column that a row lacks is an error."""
    return SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


def render(template: Template, row: Row, where: str) -> str:
    """Fill in a template.

    Raises:
        ValueError: if it uses a column that the row lacks, or fails; the row is named.
    """
    try:
        return template.render(**row)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise ValueError(f"{where}: the template fails: {error}; its columns are {', '.join(map(str, row))}") from error


@dataclass(frozen=True, slots=True)
class PublishedTemplate:
    """One template of promptsource.

    Attributes:
        name: of the template.
        prompt: makes the prompt and the target, separated by bars.
        choices: makes the choices, separated by bars; None if the answer is generated.
        text: of both, for fingerprints.
    """

    name: str
    prompt: Template
    choices: Template | None
    text: str

    def apply(self, row: Row, where: str) -> tuple[str, tuple[str, ...]]:
        """Return the prompt and the choices of a row, without surrounding space.

        Raises:
            ValueError: if the template fails on the row, or makes no prompt with a target.
        """
        safe = {k: v.replace(_BAR, _PROTECTED) if isinstance(v, str) else v for k, v in row.items()}
        choices = [] if self.choices is None else _parts(render(self.choices, safe, where))
        # The template's own output needs the choices, from which it takes the target.
        shown = choices if self.choices is not None else None
        parts = _parts(render(self.prompt, {**safe, "answer_choices": shown}, where))
        if len(parts) != 2:
            raise ValueError(f"{where}: template {self.name!r} makes {len(parts)} parts, expected prompt and target")
        return parts[0], tuple(choices)


def _parts(text: str) -> list[str]:
    return [part.replace(_PROTECTED, _BAR).strip() for part in text.split(_BAR)]


def published_templates(
    place: str, folder: Path | None, metrics: Sequence[str], dropped: Sequence[str] = ()
) -> list[PublishedTemplate]:
    """Read the templates of a data set's original task, in the order of promptsource's file.

    Args:
        place: of the data set among the templates, such as paws/labeled_final.
        folder: promptsource's folder of templates, or one above it; None: the installed package's.
        metrics: a template counts only if all its metrics are among these.
        dropped: names of templates that do not count.

    Raises:
        ValueError: if promptsource is not installed, the file is missing, or it is no file of templates.
    """
    path = _templates_folder(folder) / place / "templates.yaml"
    if not path.is_file():
        others = [p.name for p in path.parents[1].glob("*/")] if path.parents[1].is_dir() else []
        raise ValueError(f"options.templates: {path}: no such file; {near(path.parent.name, others)}")
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)["templates"].values()
        environment = _environment()
        return [
            _template(environment, entry)
            for entry in found
            if entry["metadata"]["original_task"]
            and set(entry["metadata"]["metrics"]) <= set(metrics)
            and entry["name"] not in dropped
        ]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, TemplateError) as error:
        raise ValueError(f"{path}: not a file of promptsource's templates ({error})") from error


def _template(environment: Environment, entry: Mapping[str, Any]) -> PublishedTemplate:
    text, choices = entry["jinja"], entry["answer_choices"]
    cut = text.replace("}}", f" | string | truncate({_LONGEST_TEXT}) }}}}")
    made = None if choices is None else environment.from_string(choices)
    return PublishedTemplate(entry["name"], environment.from_string(cut), made, f"{text}\0{choices}")


def _templates_folder(folder: Path | None) -> Path:
    if folder is not None:
        inner = [folder / "promptsource" / "templates", folder / "templates", folder]
        return next(place for place in inner if place.is_dir() or place == folder)
    spec = importlib.util.find_spec("promptsource")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "needs promptsource's templates: `pip install --no-deps --ignore-requires-python promptsource==0.2.3` "
            "(only its files are read), or set options.templates to a folder of them"
        )
    return Path(spec.submodule_search_locations[0]) / "templates"


def _environment() -> Environment:
    """Return promptsource's environment; `choice` takes the first item, since a random one would change results."""
    environment = SandboxedEnvironment(undefined=Undefined)
    environment.globals["zip"] = zip
    environment.filters["choice"] = lambda items: items[0]
    environment.filters["most_frequent"] = _most_frequent
    return environment


def _most_frequent(items: Sequence[Any]) -> list[Any]:
    counts = Counter(items).most_common()
    return [item for item, count in counts if count == counts[0][1]]


class _Loader(yaml.SafeLoader):
    """Reads promptsource's two kinds of objects as mappings."""


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[Any, Any]:
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, _mapping)
