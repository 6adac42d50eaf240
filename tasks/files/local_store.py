"""A disk as a store of objects, which are written in one step."""

import shutil
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from tasks.files.atomic import whole_file, write_whole


class Disk(LocalFileSystem):  # type: ignore[misc]
    """fsspec's files, but written to a temporary name and renamed: a killed process leaves no half of one."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write bytes.

        Raises:
            FileExistsError: if `mode` is "create" and the file exists; two that create it at once may both succeed.
        """
        target = self._target(path)
        if mode == "create" and target.exists():
            raise FileExistsError(path)
        write_whole(target, value)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        """Copy a file."""
        with whole_file(self._target(rpath)) as partial:
            shutil.copyfile(lpath, partial)

    def _target(self, path: str) -> Path:
        target = Path(self._strip_protocol(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        return target
