"""Threads for work on pieces: operations on a piece are too small to share, so each takes one thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from tasks.cores import permitted_cores

#: More threads wait for memory.
_MOST = 8


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Let torch's operations in this thread take one thread each."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if wanted else before)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def single_threads() -> Iterator[ThreadPoolExecutor]:
    """Yield threads in which torch's operations take one thread each."""
    count = min(permitted_cores().permitted, _MOST)
    with one_thread(), ThreadPoolExecutor(count, "pieces", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool
