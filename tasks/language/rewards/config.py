"""A reward's options, checked before anything is loaded. Free of torch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.language.base import Reward
from tasks.registry import check_options

if TYPE_CHECKING:
    import torch


class RewardConfig(BaseModel, ABC):
    """What a kind of reward is registered as: its options are the fields, and it loads the reward.

    A validator's ValueError says the rule alone; `parsed` puts the option's name before it.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @abstractmethod
    def fingerprint(self) -> str:
        """Content hash of all that a score depends on: weights, texts and options, wherever they lie.

        Raises:
            ValueError: a file or folder that an option names is not there.
        """
        ...

    @abstractmethod
    def load(self, device: "torch.device") -> Reward:
        """Make the reward, resident on `device`; its `fingerprint` is that of the method above.

        Raises:
            ValueError: an option does not fit what the files hold.
        """
        ...


_C = TypeVar("_C", bound=RewardConfig)


def parsed(kind: type[_C], options: Mapping[str, object]) -> _C:
    """The options of a spec as a `kind`.

    Raises:
        ValueError: unknown options, with near names, or values that a field refuses: the first of them.
    """
    check_options("options", options, kind.model_fields)
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        raise ValueError(_explained(error.errors()[0])) from None


def _explained(error: Any) -> str:
    """One error of pydantic as: options.field: rule, got value. One of several fields names the field itself."""
    where = ".".join(["options", *map(str, error["loc"][:1])])
    if error["type"] == "missing":
        return f"{where}: is required"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return f"{where}.{message}"
    return f"{where}: {message[0].lower() + message[1:]}, got {error['input']!r}"
