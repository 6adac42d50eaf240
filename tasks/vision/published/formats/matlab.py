"""Files of MATLAB, by scipy, which is imported when there is one: it takes half a second."""

from pathlib import Path
from typing import Any


def read_matlab(path: Path, squeeze: bool = False) -> dict[str, Any]:
    """Return name -> array of a .mat file; with `squeeze`, without dimensions of size 1.

    Raises:
        ValueError: if it is truncated, or no such file.
        OSError: if it cannot be read.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found: dict[str, Any] = loadmat(str(path), squeeze_me=squeeze)
    except MatReadError as error:
        raise ValueError(str(error)) from error
    return found
