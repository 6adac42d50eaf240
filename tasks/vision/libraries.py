"""open_clip and torchvision, imported in a quarter of the time: other modules take them from here.

Both import torch's compiler (two seconds) for functions that only a compiled model calls. They find stand-ins here,
which import the compiler when it is needed. open_clip also imports timm and transformers (two seconds more) for towers
that few models have: it does without, until such a tower is built. timm's logger imports Weights & Biases where that is
installed; it does without.
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
def _without_compiler(*absent: str) -> Iterator[None]:
    """Let imports find the stand-ins, and no wandb nor `absent`, where the real modules are not loaded yet."""
    stand_ins: dict[str, Any] = {_UTILS: _Utils(_UTILS)}
    stand_ins |= dict.fromkeys(("wandb", *absent))  # None: Python's own way to say "no module"
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


def timm_library() -> Any:
    """Return timm, imported when it is first asked for."""
    with _without_compiler():
        return importlib.import_module("timm")


def _complete_when_built(tower: Any) -> None:
    """Let the first tower of a class run the imports of its module again, now with timm and transformers."""
    incomplete = tower.__init__

    @functools.wraps(incomplete)
    def build(*args: Any, **kwargs: Any) -> None:
        tower.__init__ = incomplete
        module = sys.modules[tower.__module__]
        with _without_compiler():
            importlib.reload(module)  # `incomplete` sees its names: a module keeps its namespace
        setattr(module, tower.__name__, tower)
        incomplete(*args, **kwargs)

    tower.__init__ = build


with _without_compiler("timm", "transformers"):
    import open_clip
    import torchvision

_complete_when_built(open_clip.timm_model.TimmModel)
_complete_when_built(open_clip.hf_model.HFTextEncoder)

__all__ = ["open_clip", "timm_library", "torchvision"]
