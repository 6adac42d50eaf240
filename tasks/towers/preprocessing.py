"""How images become inputs of a tower: from its folder's preprocessor_config.json, and from the spec."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tasks.files.json_files import read_object
from tasks.registry import check_options
from tasks.vision.preprocess import Preprocess

FILE = "preprocessor_config.json"
_FIELDS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
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
    found: dict[str, Any] = {ours: stated[f"image_{ours}"] for ours in ("mean", "std") if f"image_{ours}" in stated}
    if (resample := stated.get("resample")) is not None:
        if resample not in _INTERPOLATIONS:
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


def _side(size: object) -> int | list[int] | None:
    """Return the size in pixels: of both sides, or height and width; transformers has four ways to write it."""
    if isinstance(size, dict):
        return size.get("shortest_edge") or ([size["height"], size["width"]] if "height" in size else None)
    return size if isinstance(size, int) else None


def preprocess_of(source: str, defaults: Mapping[str, Any], options: Mapping[str, Any]) -> Preprocess:
    """Combine what a model states with the spec's options.

    Args:
        source: of the model, for errors.
        defaults: fields of `Preprocess` that the model states.
        options: `image_size`, pixels of both sides; `preprocess`: fields that override the model's.

    Raises:
        ValueError: if an option is wrong, or neither states size, mean and std.
    """
    own = options.get("preprocess", {})
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
    for name in ("mean", "std"):
        _check_channels(f"backbone.options.preprocess.{name}", config[name])
    return Preprocess.from_config(config)


def _check_channels(where: str, value: object) -> None:
    if not isinstance(value, Sequence) or len(value) != 3 or not all(isinstance(v, int | float) for v in value):
        raise ValueError(f"{where}: must be three numbers, one a channel, got {value!r}")
