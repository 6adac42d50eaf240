"""Options of rewards, checked before anything is loaded. Imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.language.base import Prompt, Reward
from tasks.registry import check_options

if TYPE_CHECKING:
    import torch


class RewardConfig(BaseModel, ABC):
    """A kind of reward: the fields are its options, and `load` makes the reward.

    A validator's ValueError states only the rule; `parsed` adds the option's name.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def reads_rows(self) -> bool:
        """Return whether scores depend on whole rows of the prompt set, and not on source and reference alone."""
        return False

    def check_prompts(self, prompts: Iterable[Prompt]) -> None:
        """Check that the reward can score completions of the prompts.

        Raises:
            ValueError: if it cannot.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return the content hash of all that a score depends on: weights, texts and options, but not their place.

        Raises:
            ValueError: if a file or folder that an option names is missing.
        """
        ...

    @abstractmethod
    def load(self, device: "torch.device") -> Reward:
        """Make the reward on `device`, with the `fingerprint` of the method above.

        Raises:
            ValueError: if an option does not fit the files.
        """
        ...


_C = TypeVar("_C", bound=BaseModel)


def parsed(kind: type[_C], options: Mapping[str, object]) -> _C:
    """Parse a spec's options as a `kind`.

    Raises:
        ValueError: if an option is unknown (near names are suggested) or has an invalid value; the first is named.
    """
    check_options("options", options, kind.model_fields)
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        raise ValueError(_explained(error.errors()[0])) from None


def _explained(error: Any) -> str:
    """Format a pydantic error as `options.field: rule, got value`; errors of several fields name the field."""
    where = ".".join(["options", *map(str, error["loc"][:1])])
    if error["type"] == "missing":
        return f"{where}: is required"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return f"{where}.{message}"
    return f"{where}: {message[0].lower() + message[1:]}, got {error['input']!r}"
