"""Tensors by name that are read, computed or multiplied only when one is used."""

from collections.abc import Callable, Collection, Iterator, Mapping

from torch import Tensor


class LazyTensors(Mapping[str, Tensor]):
    """A mapping whose names are known and whose tensors are made by `__getitem__`, which subclasses define."""

    #: Whether each tensor is new memory that nothing else uses.
    makes_new = False

    def __init__(self, names: Collection[str]) -> None:
        """Take the names, in their order; looking one up must be cheap."""
        self._names = names

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of this name; `Mapping` would make it to find out."""
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._names)


class Computed(LazyTensors):
    """Tensors that a function of their name makes, each time one is used."""

    def __init__(self, names: Collection[str], compute: Callable[[str], Tensor]) -> None:
        """Take the names, in their order, and the function."""
        super().__init__(names)
        self._compute = compute

    def __getitem__(self, name: str) -> Tensor:
        """Compute a tensor."""
        return self._compute(name)
