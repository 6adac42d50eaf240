"""A user's plain Python function as a reward: f(sources, completions) -> numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from tasks.files.cache import digest
from tasks.language.base import Sample
from tasks.language.rewards.config import RewardConfig
from tasks.plugins import imported
from tasks.registry import check_options, near

if TYPE_CHECKING:
    import torch

ScoreFunction: TypeAlias = Callable[[list[str], list[str]], Iterable[float]]


class PythonFunction(RewardConfig):
    """The place of the function."""

    module: str
    """A path to a .py file, or a dotted name."""
    function: str
    """Its name in the module."""

    def fingerprint(self) -> str:
        """Hash the module's file and the function's name, but not what the module imports."""
        file = _module(self.module).__file__
        if file is None:
            raise ValueError(f"{self.module}: has no source file, so changes of the function would go unnoticed")
        return digest(["function", Path(file).read_bytes(), self.function])

    def load(self, device: "torch.device") -> "FunctionReward":
        """Return the function as a reward; it chooses its device itself."""
        return FunctionReward(_function(self.module, self.function), self.fingerprint(), self.function)


@dataclass(slots=True)
class FunctionReward:
    """Calls the function with all samples at once."""

    call: ScoreFunction
    fingerprint: str
    name: str

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Call the function with the prompts' sources and the completions.

        Raises:
            ValueError: if it fails, or does not return a list of numbers.
        """
        try:
            scores = self.call([s.prompt.source for s in samples], [s.completion for s in samples])
        except Exception as error:
            raise ValueError(f"{self.name}: failed: {type(error).__name__}: {error}") from error
        try:
            return [float(score) for score in scores]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.name}: must return a list of numbers, got {scores!r:.80} ({error})") from error


def function_config(source: str, options: Mapping[str, object]) -> PythonFunction:
    """Make the reward `FILE.py:FUNCTION` or `package.module:FUNCTION`; import its module once a process.

    Raises:
        ValueError: if the file, module or function is missing, is not callable or fails on import; or for any option.
    """
    check_options("options", options, ())
    module, _, function = source.rpartition(":")
    _function(module, function)
    return PythonFunction(module=module, function=function)


def _function(module: str, name: str) -> ScoreFunction:
    found = vars(_module(module))
    if name not in found:
        mine = [key for key, value in found.items() if callable(value) and not key.startswith("__")]
        raise ValueError(f"{module}: has no function {name!r}; {near(name, mine)}")
    if not callable(found[name]):
        raise ValueError(f"{module}: {name!r} must be a function, got {found[name]!r:.80}")
    function: ScoreFunction = found[name]
    return function


def _module(name: str) -> ModuleType:
    try:
        return imported(name)
    except Exception as error:
        raise ValueError(f"cannot import {name!r}: {type(error).__name__}: {error}") from error
