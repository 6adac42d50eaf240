"""Rows of a split: checks, and the fixed batches that hold them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def find_rows(rows: Sequence[int], size: int) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Return the batches that hold the rows, in order, and each row's place in their concatenation.

    Args:
        rows: numbers of samples.
        size: samples of every batch but the last of the split.

    Example:
        >>> batches, places = find_rows([9, 1, 8], size=4)
        >>> batches, places.tolist()
        ([0, 2], [5, 1, 4])
    """
    rows_B = np.asarray(rows, np.int64)
    batches, which_B = np.unique(rows_B // size, return_inverse=True)
    return batches.tolist(), which_B.reshape(-1) * size + rows_B % size


def check_rows(name: str, split: str, rows: Sequence[int], samples: int) -> None:
    """Require rows of a split.

    Raises:
        ValueError: if there is none, or one is not below the number of samples.
    """
    if not rows or not 0 <= min(rows) <= max(rows) < samples:
        got = f"{min(rows)} to {max(rows)}" if rows else "none"
        raise ValueError(f"{name}: rows of {split} must be from 0 to {samples - 1}, got {got}")
