"""The known published image sets, read from `tasks/vision/published/*.yaml`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tasks.registry import near
from tasks.vision.libraries import open_clip

_DATA = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class FileLayout:
    """The place and format of a set's files.

    Attributes:
        format: a format of `tasks.vision.published.formats.formats`.
        place: below the root.
        splits: "train", "val", "test" -> the format's name of it.
    """

    format: str
    place: str
    splits: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class VisionSet:
    """One entry of sets.yaml, which documents the fields."""

    name: str
    layouts: Sequence[FileLayout]
    counts: Mapping[str, int]
    templates: Sequence[str]
    by_hand: str
    names: str = ""
    numbered: bool = False
    keep_underscores: bool = False
    drop_letter: bool = False
    counts_inferred: bool = False
    download: Mapping[str, Any] = field(default_factory=dict)
    huggingface: Mapping[str, Any] = field(default_factory=dict)

    def class_names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Return the names in prompts and in files of the classes; both empty if the files have the prompts'."""
        if not self.names:
            return (), ()
        ids = _read("wordnet_ids.yaml")
        if self.names not in ids:
            lists = _read("class_names.yaml")
            return lists[self.names], lists.get(f"{self.names} keys", ())
        keys: list[str] = ids[self.names]
        index = {wordnet_id: i for i, wordnet_id in enumerate(ids["ImageNet"])}
        names = open_clip.IMAGENET_CLASSNAMES
        return [names[index[k]] for k in keys], [str(index[k]) for k in keys] if self.numbered else keys

    def prompt_name(self, own: str) -> str:
        """Return the name in prompts of a class that the files call `own`, for sets whose files have the names."""
        if self.drop_letter and own[1:2] == "_":
            own = own[2:]
        return own if self.keep_underscores else own.replace("_", " ")


def set_names() -> list[str]:
    """Return the names of all sets: the paper's 8, 14 and 20 tasks in order, then ImageNet and its shifted sets."""
    return list(_read("sets.yaml"))


def vision_set(name: str) -> VisionSet:
    """Look up a set.

    Raises:
        ValueError: if the name is unknown; near names are suggested.
    """
    if name not in (known := _read("sets.yaml")):
        raise ValueError(f"vision/{name}: no such data set; {near(name, known)}")
    values = dict(known[name])
    layouts = [FileLayout(**layout) for layout in values.pop("layouts")]
    templates = values.pop("templates")
    if templates == "openai_imagenet":
        templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    return VisionSet(name, layouts, templates=templates, **values)


@cache
def _read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((_DATA / name).read_text(encoding="utf-8"))
    return values
