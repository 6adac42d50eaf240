"""Threads for work on pieces: operations on a piece are too small to share, so each takes one thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from tasks.cores import permitted_cores

#: More threads wait for memory.
_MOST = 8
#: The largest block by whose release glibc learns (32 MB), and a page less for its own words.
_LEARNED = (32 << 20) - (1 << 12)


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Let torch's operations in this thread take one thread each."""
    if wanted:
        _keep_freed_memory()
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


def _keep_freed_memory() -> None:
    """Let glibc keep up to 64 MB that are freed for the next piece; other allocators do not mind.

    It returns memory to the system from twice the largest block that it has mapped and freed, at first 256 KB. Each
    operation on a piece then asks for its pages again: a weighted sum of three bfloat16 models of 134M parameters took
    3.0 CPU seconds, and 0.85 with this.
    """
    torch.empty(_LEARNED, dtype=torch.uint8)
