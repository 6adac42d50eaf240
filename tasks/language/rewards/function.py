"""A user's plain Python function as a reward: f(sources, completions) or f(sources, completions, rows) -> numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from tasks.files.cache import digest
from tasks.language.base import Prompt, Sample
from tasks.language.rewards.config import RewardConfig
from tasks.plugins import imported
from tasks.registry import check_options, near

if TYPE_CHECKING:
    import torch

ScoreFunction: TypeAlias = Callable[..., Iterable[float]]
#: The parameter of functions that take whole rows.
_ROWS = "rows"


class PythonFunction(RewardConfig):
    """The place of the function, and the columns that it needs."""

    module: str
    """A path to a .py file, or a dotted name."""
    function: str
    """Its name in the module."""
    columns: tuple[str, ...] = ()
    """Columns that every row must have."""

    def fingerprint(self) -> str:
        """Hash the module's file and the function's name, but not what the module imports."""
        file = _module(self.module).__file__
        if file is None:
            raise ValueError(f"{self.module}: has no source file, so changes of the function would go unnoticed")
        return digest(["function", Path(file).read_bytes(), self.function])

    def reads_rows(self) -> bool:
        """Return whether the function has a parameter `rows`."""
        return _takes_rows(_function(self.module, self.function))

    def check_prompts(self, prompts: Iterable[Prompt]) -> None:
        """Check that every row has the columns.

        Raises:
            ValueError: if one has not; the first is shown.
        """
        for prompt in prompts:
            if missing := [name for name in self.columns if prompt.row.get(name) is None]:
                raise ValueError(
                    f"options.columns: a row has no {missing[0]}: {prompt.source!r:.60}; {near(missing[0], prompt.row)}"
                )

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
        """Call the function with the prompts' sources, the completions, and the rows if it takes them.

        Raises:
            ValueError: if it fails, or does not return a list of numbers.
        """
        rows = {_ROWS: [dict(s.prompt.row) for s in samples]} if _takes_rows(self.call) else {}
        try:
            scores = self.call([s.prompt.source for s in samples], [s.completion for s in samples], **rows)
        except Exception as error:
            raise ValueError(f"{self.name}: failed: {type(error).__name__}: {error}{_hint(error, rows)}") from error
        try:
            return [float(score) for score in scores]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.name}: must return a list of numbers, got {scores!r:.80} ({error})") from error


def _hint(error: Exception, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> str:
    """Name the columns of the rows if the function looks for another one."""
    if not isinstance(error, KeyError) or not rows:
        return ""
    columns = dict.fromkeys(name for row in rows[_ROWS] for name in row)
    return f"; the rows have the columns {', '.join(columns) or 'none'}"


def _takes_rows(function: ScoreFunction) -> bool:
    """Whether a function has a parameter `rows` after those of sources and completions, whatever their names."""
    try:
        parameters = signature(function).parameters
        return _ROWS in parameters and (
            parameters[_ROWS].kind is Parameter.KEYWORD_ONLY or list(parameters).index(_ROWS) > 1
        )
    except (TypeError, ValueError):  # some functions of C have no signature
        return False


def function_config(source: str, options: Mapping[str, object]) -> PythonFunction:
    """Make the reward `FILE.py:FUNCTION` or `package.module:FUNCTION`; import its module once a process.

    Raises:
        ValueError: if the file, module or function is missing, is not callable or fails on import; for an unknown
            option; or for columns of a function that takes no rows.
    """
    check_options("options", options, ("columns",))
    columns = options.get("columns", ())
    if not isinstance(columns, list | tuple) or not all(isinstance(name, str) for name in columns):
        raise ValueError(f"options.columns: must be a list of names, got {columns!r}")
    module, _, function = source.rpartition(":")
    if not _takes_rows(_function(module, function)) and columns:
        raise ValueError(
            f"options.columns: {function} takes no rows: give it a parameter {_ROWS}, as in "
            f"def {function}(sources, completions, {_ROWS})"
        )
    return PythonFunction(module=module, function=function, columns=tuple(columns))


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
