"""Old names of moved modules, so that plug-ins written for them still load."""

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

import tasks

MOVED = {
    "tasks.adapters": "tasks.lora",
    "tasks.classification": "tasks.vision.classification",
    "tasks.classifier": "tasks.vision.classifier",
    "tasks.clip": "tasks.vision.clip.backbone",
    "tasks.data": "tasks.vision.decoded",
    "tasks.folders": "tasks.vision.folders",
    "tasks.heads": "tasks.vision.heads",
    "tasks.images": "tasks.vision.images",
    "tasks.preprocess": "tasks.vision.preprocess",
}


class _MovedModule(ModuleType):
    """Forwards each name to the module's new place, which is imported at the first use."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        place = MOVED[self.__name__]
        value = getattr(importlib.import_module(place), name)
        if name in importlib.import_module("tasks.vision").__all__:
            place = "tasks.vision"
        warnings.warn(f"{self.__name__} has moved: use `from {place} import {name}`", FutureWarning, stacklevel=2)
        return value


def install() -> None:
    """Make the old names importable. No moved module is imported yet."""
    for name in MOVED:
        if name not in sys.modules:
            sys.modules[name] = _MovedModule(name)
            setattr(tasks, name.removeprefix("tasks."), sys.modules[name])
