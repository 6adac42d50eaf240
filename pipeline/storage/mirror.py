"""A run's folder wherever it is: on a disk as it lies, or in an object store by way of a folder here."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def run_folder(place: str, *, write: bool = False) -> Iterator[Path]:
    """The folder of the run at `place`, a path or a URL, for as long as the block lasts.

    Args:
        place: a path, or a URL such as s3://bucket/runs/my-sweep.
        write: whether what the block writes there is to be kept at `place`.
    """
    yield Path(place)
