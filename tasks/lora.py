"""The parameters of a model family that a LoRA adapter changes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class WeightPart:
    """The weight of a linear module, of shape (outputs, inputs).

    Attributes:
        parameter: its name in the backbone's module.
        index: which of `count` equal groups of the parameter's rows; attention keeps q, k and v in one parameter.
        count: 1 for the whole parameter.
    """

    parameter: str
    index: int = 0
    count: int = 1


@runtime_checkable
class TakesAdapters(Protocol):
    """A backbone that accepts LoRA adapters as experts."""

    def weight_parts(self, modules: Iterable[str], source: str) -> Mapping[str, WeightPart]:
        """Find the weight of each module that an adapter changes.

        Args:
            modules: the adapter's names, in any layout that the family knows.
            source: where the adapter came from, for errors.

        Raises:
            ValueError: if a name is not a linear module of the edited tower; the first names are given.
        """
        ...


@runtime_checkable
class ChecksPolicies(Protocol):
    """A backbone that checks whether an expert has its vocabulary."""

    inputs: str
    """Content hash of its configuration and tokenizer: part of every recipe's identity."""

    def check_expert(self, folder: Path, source: str) -> None:
        """Compare the tokenizer in an expert's folder, if there is one, with the base's.

        Args:
            folder: of the expert, on this machine.
            source: where it came from, for errors.

        Raises:
            ValueError: if they differ; the first differing tokens are given.
        """
        ...
