"""open_clip, timm and torchvision, imported in half the time: other modules take them from here.

All three import torch's compiler (two seconds) for functions that only a compiled model calls. They find stand-ins
here, which import the compiler when it is needed. timm's logger also imports Weights & Biases where that is installed;
it does without.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo"
_UTILS = f"{_COMPILER}.utils"


class _Utils(ModuleType):
    """Stands for the compiler's module of which torchvision imports one function."""

    def __getattr__(self, name: str) -> Any:
        if name == "is_compile_supported":
            return lambda device: getattr(_real(), name)(device)
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(), name)


def _real() -> ModuleType:
    if isinstance(sys.modules.get(_UTILS), _Utils):
        del sys.modules[_UTILS]
    return importlib.import_module(_UTILS)


def _disable(fn: Callable[..., Any], recursive: bool = True, *, reason: str | None = None) -> Callable[..., Any]:
    """Stand for the decorator `torch.compiler.disable`: without the compiler, the function is called as it is."""

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _COMPILER not in sys.modules:
            return fn(*args, **kwargs)
        compiler: Any = torch.compiler  # its functions have no types
        return compiler.disable(fn, recursive, reason=reason)(*args, **kwargs)

    vars(call)["_torchdynamo_disable"] = True  # the compiler then calls it, and does not look inside
    return call


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Let imports find the stand-ins, and no wandb, where the real modules are not loaded yet."""
    stand_ins: dict[str, Any] = {_UTILS: _Utils(_UTILS), "wandb": None}  # None: Python's own way to say "no module"
    added = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(added)
    compiler: Any = torch.compiler
    disable = compiler.disable
    if _UTILS in added:
        compiler.disable = _disable
    try:
        yield
    finally:
        compiler.disable = disable
        for name, module in added.items():
            if sys.modules.get(name, module) is module:
                sys.modules.pop(name, None)


with _without_compiler():
    import open_clip
    import timm
    import torchvision

__all__ = ["open_clip", "timm", "torchvision"]
