"""How images become inputs of a tower: from its folder's preprocessor_config.json, and from the spec."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tasks.files.json_files import read_object
from tasks.registry import check_options
from tasks.vision.preprocess import Preprocess

FILE = "preprocessor_config.json"
_FIELDS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
_WORDS = {"interpolation": ("bicubic", "bilinear", "random"), "resize_mode": ("shortest", "longest", "squash")}
_INTERPOLATIONS = {
    int(Image.Resampling.BILINEAR): "bilinear",
    int(Image.Resampling.BICUBIC): "bicubic",
}


def of_folder(folder: Path, source: str) -> dict[str, Any]:
    """Read the fields of `Preprocess` that preprocessor_config.json states; {} without the file.

    Raises:
        ValueError: if it is no JSON object, or states what open_clip's transform does not do.
    """
    if not (folder / FILE).is_file():
        return {}
    stated = read_object(folder / FILE, f"{source}: {FILE}")
    _check_pixels(stated, f"{source}: {FILE}")
    found: dict[str, Any] = {ours: stated[f"image_{ours}"] for ours in ("mean", "std") if f"image_{ours}" in stated}
    if stated.get("do_normalize") is False:  # mean and std are then there, too, but not used
        found |= {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    if (resample := stated.get("resample")) is not None:
        if not isinstance(resample, int) or resample not in _INTERPOLATIONS:
            raise ValueError(
                f"{source}: {FILE}: resample: must be 2 (bilinear) or 3 (bicubic), got {resample!r}; set "
                "backbone.options.preprocess: {interpolation: bicubic}, and leave it out of the file"
            )
        found["interpolation"] = _INTERPOLATIONS[resample]
    crop, size = _side(stated.get("crop_size")), stated.get("size")
    if crop := crop if stated.get("do_center_crop") else _side(size):
        found["size"] = crop
    if not stated.get("do_center_crop") and isinstance(size, dict) and "height" in size:
        found["resize_mode"] = "squash"
    return found


def _check_pixels(stated: Mapping[str, Any], where: str) -> None:
    """Require that the tower takes red, green and blue in [0, 1], before mean and std."""
    factor = stated.get("rescale_factor", 1 / 255)
    if stated.get("do_rescale") is False or not isinstance(factor, float) or not math.isclose(factor, 1 / 255):
        raise ValueError(
            f"{where}: rescale_factor: must be 1/255, and do_rescale true, as mean and std are of values in [0, 1]: "
            "leave both out of the file, and set mean and std in backbone.options.preprocess"
        )
    if stated.get("do_flip_channel_order"):
        raise ValueError(f"{where}: do_flip_channel_order: images in the order blue, green, red are not supported")


def _side(size: object) -> int | list[int] | None:
    """Return the size in pixels: of both sides, or height and width; transformers has four ways to write it."""
    if isinstance(size, dict):
        return size.get("shortest_edge") or (
            [size["height"], size["width"]] if {"height", "width"} <= set(size) else None
        )
    return size if isinstance(size, int) else None


def preprocess_of(source: str, defaults: Mapping[str, Any], options: Mapping[str, Any]) -> Preprocess:
    """Combine what a model states with the spec's options.

    Args:
        source: of the model, for errors.
        defaults: fields of `Preprocess` that the model states.
        options: `image_size`, pixels of both sides; `preprocess`: fields that override the model's.

    Raises:
        ValueError: if a value is wrong, or neither states size, mean and std.
    """
    own = options.get("preprocess", {})
    if not isinstance(own, Mapping):
        raise ValueError(f"backbone.options.preprocess: must be a mapping of {', '.join(_FIELDS)}, got {own!r}")
    check_options("backbone.options.preprocess", own, _FIELDS)
    config = {"interpolation": "bicubic", "resize_mode": "shortest"} | dict(defaults) | dict(own)
    if (size := options.get("image_size")) is not None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"backbone.options.image_size: must be a whole number of pixels, got {size!r}")
        config["size"] = size
    for name, field in (("size", "image_size"), ("mean", "preprocess.mean"), ("std", "preprocess.std")):
        if name not in config:
            raise ValueError(
                f"backbone.options.{field}: must be given, since {source} has no {FILE} that states it; ImageNet's "
                "mean is [0.485, 0.456, 0.406], and its std [0.229, 0.224, 0.225]"
            )
    _check(source, config)
    return Preprocess.from_config(config)


def _check(source: str, config: Mapping[str, Any]) -> None:
    """Require values that open_clip's transform takes, whether the model or the spec states them."""
    sides = config["size"] if isinstance(config["size"], Sequence) else [config["size"]]
    if not all(_is_number(side) and isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(
            f"{source}: {FILE}: the size must be whole numbers of pixels, got {config['size']!r}: set "
            "backbone.options.image_size"
        )
    where = "backbone.options.preprocess"
    for name in ("mean", "std"):
        value = config[name]
        if not isinstance(value, Sequence) or len(value) != 3 or not all(map(_is_number, value)):
            raise ValueError(f"{where}.{name}: must be three numbers, one a channel, got {value!r}")
    if min(config["std"]) <= 0:
        raise ValueError(f"{where}.std: must be above 0, as images are divided by it, got {config['std']!r}")
    for name, words in _WORDS.items():
        if (value := config[name]) not in words:
            raise ValueError(f"{where}.{name}: must be one of {', '.join(words)}, got {value!r}")
    fill = config.get("fill_color", 0)
    if not _is_number(fill) or not 0 <= fill <= 255:
        raise ValueError(f"{where}.fill_color: must be a grey value from 0 to 255, got {fill!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
