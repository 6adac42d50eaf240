"""ObjectNet: 113 of its classes each match one or several of ImageNet's; images have a red border of 2 pixels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.vision.published.formats.files import FORMATS as FILES
from tasks.vision.published.formats.files import class_folders
from tasks.vision.published.formats.listing import FilesMissing, Format, Listing, WithoutBorder

_BORDER = 2


def imagenet_groups(place: Path) -> list[list[int]]:
    """Return the indices of ImageNet's classes for each class of ObjectNet, from the set's own PLACE/mappings.

    The logit of a class is the largest of its ImageNet classes (model-soups, datasets/objectnet.py).

    Raises:
        FilesMissing: if the mappings contradict each other.
    """
    wanted = _mapping(place, "objectnet_to_imagenet_1k.json")
    labels_of = _mapping(place, "folder_to_objectnet_label.json")
    # Line i of the names is class i of ILSVRC2012, which has another index in published models.
    published = {line: int(index) for index, line in _mapping(place, "pytorch_to_imagenet_2012_id.json").items()}
    lines = (place / "mappings/imagenet_to_label_2012_v2").read_text().splitlines()
    index_of = {name.strip(): published[i] for i, name in enumerate(lines) if name.strip()}
    try:
        return [[index_of[name] for name in wanted[labels_of[f]].split("; ")] for f in _class_names(place, "images")]
    except KeyError as error:
        raise FilesMissing(
            f"{place}/mappings: the files contradict each other: {error} is not in all of them"
        ) from error


def _class_names(place: Path, split: str) -> Sequence[str]:
    """Return the sorted folders of the classes that are in ImageNet too."""
    wanted = _mapping(place, "objectnet_to_imagenet_1k.json")
    labels_of = _mapping(place, "folder_to_objectnet_label.json")
    return [folder for folder in class_folders(place, split) if labels_of.get(folder) in wanted]


def _read(place: Path, split: str) -> Listing:
    folders, kept = class_folders(place, split), _class_names(place, split)
    new = {folders.index(folder): label for label, folder in enumerate(kept)}
    everything = FILES["folders"].read(place, split)
    rows = [(p, new[n]) for p, n in zip(everything.images, everything.labels, strict=True) if n in new]
    images = [WithoutBorder(path, _BORDER) for path, _ in rows if isinstance(path, Path)]
    return Listing(images, [label for _, label in rows])


def _mapping(place: Path, name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((place / "mappings" / name).read_text())
    return values


FORMAT = Format(_read, _class_names)
