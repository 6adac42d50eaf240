"""The order in which a search scores validation samples, cut into stages.

Shape legend: n samples of a task, S stages.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

#: Before the order's name, in the split of a request.
PREFIX = "val/"


@dataclass(frozen=True)
class SampleOrder:
    """An order of the samples of several tasks; each stage has some of every task.

    Attributes:
        rows: task -> the samples in the order of scoring, int64 (n,): a permutation of 0 to n - 1.
        cuts: task -> places in that order, int64 (S + 1,): stage s scores rows[cuts[s]:cuts[s + 1]].
        name: the split of its requests: "val/" and a hash of all this, so that equal orders have equal requests.

    Example:
        >>> order = SampleOrder({"cats": np.array([2, 0, 1])}, {"cats": np.array([0, 2, 3])})
        >>> order.stages, order.samples
        (2, 3)
    """

    rows: Mapping[str, npt.NDArray[np.int64]]
    cuts: Mapping[str, npt.NDArray[np.int64]]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Hash the order."""
        content = hashlib.blake2b(digest_size=8)
        for task, rows_n in self.rows.items():
            content.update(task.encode() + b"\0" + rows_n.astype("<i8").tobytes() + self.cuts[task].tobytes())
        object.__setattr__(self, "name", PREFIX + content.hexdigest())

    @property
    def stages(self) -> int:
        """The number of stages."""
        return len(next(iter(self.cuts.values()))) - 1

    @property
    def samples(self) -> int:
        """The number of samples of all tasks."""
        return sum(map(len, self.rows.values()))

    def stages_of(self, task: str) -> list[int]:
        """Return the stages that have samples of a task; none if the order is of other tasks."""
        return np.flatnonzero(np.diff(self.cuts[task])).tolist() if task in self.cuts else []


def data_split(split: str) -> str:
    """Return the split of the data from the split of a request: an order's requests are of "val".

    Example:
        >>> data_split("val/0123456789abcdef"), data_split("test")
        ('val', 'test')
    """
    return split.partition("/")[0]
