"""Image tasks: data sets, zero-shot heads, classification; the names below are for plug-ins."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.vision.classification import zero_shot
    from tasks.vision.decoded import Progress
    from tasks.vision.folders import FolderSource
    from tasks.vision.images import ImageRecord, ImageSource, content_hash

__all__ = ["FolderSource", "ImageRecord", "ImageSource", "Progress", "content_hash", "zero_shot"]

_MODULES = {
    "FolderSource": "folders",
    "ImageRecord": "images",
    "ImageSource": "images",
    "Progress": "decoded",
    "content_hash": "images",
    "zero_shot": "classification",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name at its first use, so that light modules of this package need no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
