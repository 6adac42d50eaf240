"""The place of the index of several runs, which may be folders or URLs."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from pipeline.report.index import common_folder
from pipeline.storage.run_folder import copy_of, run_folder
from tasks.files.object_store import StoreFolder, is_url


def common_place(places: Sequence[str]) -> str:
    """Return the deepest folder that contains all runs, for their index.

    Raises:
        ValueError: if there is none: several buckets, paths and URLs, or only the root of the file system.
    """
    if not any(map(is_url, places)):
        return str(common_folder([Path(place) for place in places]))
    protocols = {place.partition("://")[0] if is_url(place) else "" for place in places}
    parents = [str(PurePosixPath(place.partition("://")[2]).parent) for place in places]
    common = os.path.commonpath(parents) if len(protocols) == 1 else ""
    if common in ("", "."):
        raise ValueError(f"{', '.join(places)}: their index needs one bucket, or one disk, that contains them all")
    return f"{protocols.pop()}://{common}"


@contextmanager
def index_of(places: Sequence[str], common: str) -> Iterator[tuple[list[Path], Path]]:
    """Yield the run folders, and the folder for the block to write index.html and index.md into.

    Raises:
        RemoteError: if the object store refuses.
    """
    with ExitStack() as stack:
        folders = [stack.enter_context(run_folder(place)) for place in places]
        folder = copy_of(common) if is_url(common) else Path(common)
        yield folders, folder
        if is_url(common):
            remote = StoreFolder.open(common)
            for name in ("index.html", "index.md"):
                remote.upload(folder / name, name)
