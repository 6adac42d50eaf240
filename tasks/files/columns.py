"""Columns of Arrow tables from Python's values, without pandas.

`pa.array` and `pa.Table.from_pylist` give the same arrays, but first import pandas, where it is installed, to ask
whether they were given its types: 0.3 CPU seconds of every run.
"""

from collections.abc import Mapping, Sequence, Sized
from itertools import accumulate, chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_Array: TypeAlias = npt.NDArray[Any]
_NUMBERS: Mapping[pa.DataType, np.dtype[Any]] = {
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.float32(): np.dtype(np.float32),
    pa.float64(): np.dtype(np.float64),
}
_MOST = np.iinfo(np.int32).max


def column(values: Sequence[Any] | _Array, kind: pa.DataType) -> pa.Array:
    """Return the array of `values`, where None is null.

    Args:
        values: Python's values of the type; lists may be NumPy arrays.
        kind: the type. Texts, Booleans, int32, int64, float32, float64 and lists need no pandas.

    Raises:
        TypeError: if a value does not fit the type.
        OverflowError: if an integer is out of range, or texts or lists hold 2 GiB or more.

    Example:
        >>> column(["a", None], pa.string()).to_pylist()
        ['a', None]
    """
    valid = [] if isinstance(values, np.ndarray) else [value is not None for value in values]
    mask = None if all(valid) else _bits(valid)
    if kind in _NUMBERS:
        return pa.Array.from_buffers(kind, len(values), [mask, pa.py_buffer(_numbers(values, _NUMBERS[kind]))])
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(kind, len(values), [mask, _bits(values)])
    if pa.types.is_string(kind):
        texts = [b"" if value is None else str.encode(value) for value in values]
        return pa.Array.from_buffers(kind, len(texts), [mask, _offsets(texts), pa.py_buffer(b"".join(texts))])
    if pa.types.is_list(kind):
        parts = [() if value is None else value for value in values]
        children = [column(_joined(parts), kind.value_type)]
        return pa.Array.from_buffers(kind, len(parts), [mask, _offsets(parts)], children=children)
    return pa.array(values, kind)


def _bits(values: Sequence[Any] | _Array) -> pa.Buffer:
    return pa.py_buffer(np.packbits(np.array(values, dtype=bool), bitorder="little"))


def _numbers(values: Sequence[Any] | _Array, dtype: np.dtype[Any]) -> _Array:
    """Return the values as `dtype`, 0 for None; like Arrow, this cuts fractions off, and reads no number in a text."""
    if not isinstance(values, np.ndarray):
        values = np.array([0 if value is None else value for value in values], dtype=None if values else dtype)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"numbers are needed, got {values.dtype}")
    made: _Array = np.ascontiguousarray(values.astype(dtype))
    if dtype.kind == values.dtype.kind == "i" and not np.array_equal(made, values):
        raise OverflowError(f"a number is out of the range of {dtype}")
    return made


def _joined(parts: Sequence[Any]) -> Sequence[Any] | _Array:
    if parts and all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return list(chain.from_iterable(parts))


def _offsets(parts: Sequence[Sized]) -> pa.Buffer:
    ends = list(accumulate(map(len, parts), initial=0))
    if ends[-1] > _MOST:
        raise OverflowError(f"a column holds at most {_MOST:,} bytes or numbers at a time, got {ends[-1]:,}")
    return pa.py_buffer(np.array(ends, dtype=np.int32))
