"""The images that a task's source names: an embedded pack, a published set, or a folder."""

from pathlib import Path
from typing import Any

from tasks import embedded
from tasks.base import TaskRequest
from tasks.registry import TASKS, check_options, near
from tasks.vision.folders import FolderSource
from tasks.vision.images import ImageSource
from tasks.vision.packs import PackSource
from tasks.vision.published.catalogue import vision_set
from tasks.vision.published.files import VISION_OPTIONS, vision_options
from tasks.vision.published.sets import VisionSource

#: Options of heads that are fitted to training images.
FITTING_OPTIONS = ("classifier", "fitted_on")
_COMMON_OPTIONS = ("batch_size", "templates", *FITTING_OPTIONS)
_FILE_OPTIONS = ("exif_orientation",)
_FOLDER_OPTIONS = ("class_names", "val_fraction")


def image_source(request: TaskRequest) -> ImageSource:
    """Return the source that `request.source` names: `embedded/NAME`, `vision/NAME`, or a folder of images.

    Raises:
        ValueError: if the source does not exist (near names of packs and tasks are suggested), or an option is unknown.
    """
    where, options = f"tasks.{request.name}.options", request.options
    if request.source.startswith("embedded/"):
        check_options(where, options, _COMMON_OPTIONS)
        name = request.source.removeprefix("embedded/")
        try:
            path = embedded.pack_path(name)
        except ValueError as error:
            raise ValueError(f"{error}; to name a folder, write ./{name}") from error
        return PackSource(path)
    if request.source.startswith("vision/"):
        check_options(where, options, _COMMON_OPTIONS + _FILE_OPTIONS + VISION_OPTIONS)
        chosen: dict[str, Any] = {k: v for k, v in options.items() if k in VISION_OPTIONS}
        return VisionSource(vision_set(request.source.removeprefix("vision/")), vision_options(where, chosen))
    if not (folder := Path(request.source)).is_dir():
        known = [f"embedded/{name}" for name in embedded.pack_names()] + list(TASKS)
        known += [str(p) for p in folder.parent.glob("*/") if "/" in request.source]
        rule = f"{request.source!r} is not a folder, an embedded pack or a registered task"
        raise ValueError(f"tasks.{request.name}: {rule}; {near(request.source, known)}")
    check_options(where, options, _COMMON_OPTIONS + _FILE_OPTIONS + _FOLDER_OPTIONS)
    chosen = {k: options[k] for k in _FOLDER_OPTIONS if k in options}
    return FolderSource(Path(request.source), **chosen)
