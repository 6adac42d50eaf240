"""Folders in object stores and on shared disks, by fsspec: a few operations, with errors that name a remedy."""

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem, get_filesystem_class
from fsspec.callbacks import Callback

from tasks.extras import install_hint
from tasks.files.local_store import Disk
from tasks.files.store_errors import EXTRAS, RemoteError, credentials, explained, http_status, no_bucket

#: Called with the bytes transferred so far, and the bytes in all.
Progress = Callable[[int, int], None]
T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PRECONDITION_FAILED = 412
_DELETED_AT_ONCE = 16


def is_url(text: str) -> bool:
    """Return whether `text` is a URL, such as s3://bucket/folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def check_url(url: str) -> None:
    """Require a URL of a protocol, a bucket and a path.

    Raises:
        ValueError: if it holds credentials or a query, which would end up in journals and logs, or names no bucket.
    """
    parts = urlsplit(url)
    clean = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc:
        raise ValueError(f"{clean}: was given with a user or a password in the URL: leave them out; {credentials(url)}")
    if parts.query:
        raise ValueError(f"{clean}: was given with a query (?...), which may be a secret: leave it out")
    if not parts.netloc:
        raise ValueError(f"{url}: must name a bucket, as in {parts.scheme}://BUCKET/FOLDER")
    _check_plain(url)


def _check_plain(place: str) -> None:
    """Refuse characters that fsspec takes for patterns: an operation would reach other folders."""
    if strange := sorted(set(place) & set("*?[]")):
        raise ValueError(f"{place}: must not contain {' or '.join(strange)}: give another place")


@dataclass(frozen=True)
class StoreFolder:
    """A folder of an object store, or of a disk. Every operation raises RemoteError if the store refuses.

    Attributes:
        url: as a user writes it, without a slash at the end.
        fs: fsspec's filesystem.
        root: the folder's path in `fs`.
    """

    url: str
    fs: AbstractFileSystem
    root: str

    @classmethod
    def open(cls, url: str) -> "StoreFolder":
        """Return the folder at a URL or a path, without asking the store.

        Raises:
            ValueError: if the URL holds credentials, its protocol is unknown, or a package is missing.

        Example:
            >>> runs = StoreFolder.open("s3://bucket/runs")
            >>> runs.create("notes.txt", b"first")
            True
            >>> runs.create("notes.txt", b"second"), runs.read("notes.txt")
            (False, b'first')
        """
        if not is_url(url):
            _check_plain(url)
            fs = _filesystem("file")
            return cls(url.rstrip("/"), fs, str(Path(url).expanduser().absolute()))
        check_url(url)
        fs = _filesystem(urlsplit(url).scheme.lower(), *map(os.environ.get, _ENVIRONMENT))
        return cls(url.rstrip("/"), fs, str(fs._strip_protocol(url)).rstrip("/"))

    @property
    def creates_exclusively(self) -> bool:
        """Whether one of two creations of an object fails; fsspec's default looks first, and then writes."""
        overridden = getattr(self.fs.pipe_file, "__func__", None) is not AbstractFileSystem.pipe_file
        return overridden and not isinstance(self.fs, Disk)

    def read(self, name: str) -> bytes | None:
        """Return an object's content; None if it does not exist.

        Raises:
            RemoteError: also if the bucket does not exist.
        """
        with self._errors_explained("read", name):
            return _unless_missing(lambda: bytes(self.fs.cat_file(f"{self.root}/{name}")))

    def read_many(self, names: Iterable[str]) -> dict[str, bytes | None]:
        """Return the contents of many objects, read at once; None for each missing one."""
        paths = {f"{self.root}/{name}": name for name in names}
        if not paths:
            return {}
        with self._errors_explained("read", ""):
            found = self.fs.cat(list(paths), on_error="return")
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
        return {n: None if isinstance(c := found[p], Exception) else bytes(c) for p, n in paths.items()}

    def create(self, name: str, data: bytes) -> bool:
        """Write a new object in one step; return False, and write nothing, if the name is taken.

        If the store does not `creates_exclusively`, two concurrent creations may both succeed.
        """
        with self._errors_explained("write", name):
            try:
                self.fs.pipe_file(f"{self.root}/{name}", data, mode="create")
            except Exception as error:  # of packages that need not be installed
                if isinstance(error, FileExistsError) or http_status(error) == _PRECONDITION_FAILED:
                    return False
                raise
        return True

    def write(self, name: str, data: bytes) -> None:
        """Write an object in one step, over an existing one."""
        with self._errors_explained("write", name):
            self.fs.pipe_file(f"{self.root}/{name}", data)

    def upload(self, path: Path, name: str) -> None:
        """Write a file as an object."""
        with self._errors_explained("write", name):
            self.fs.put_file(str(path), f"{self.root}/{name}")

    def download(self, name: str, path: Path, progress: Progress | None = None) -> None:
        """Write an object to a file.

        Raises:
            RemoteError: also if it does not exist.
        """
        with self._errors_explained("read", name):
            self.fs.get_file(f"{self.root}/{name}", str(path), callback=_ProgressCallback(progress))

    def entries(self, folder: str = "") -> dict[str, Mapping[str, Any]]:
        """Return the objects at any depth below a folder: names relative to this one, and the store's information."""
        below = f"{self.root}/{folder}".rstrip("/")
        with self._errors_explained("list", folder):
            self.fs.invalidate_cache()
            found = self.fs.find(below, detail=True)
        names = {str(path)[len(self.root) + 1 :]: info for path, info in found.items()}
        return {name: info for name, info in names.items() if info["type"] == "file" and name}

    def info(self, name: str) -> Mapping[str, Any] | None:
        """Return the store's information on an object; None if it does not exist.

        Raises:
            RemoteError: also if the bucket does not exist.
        """
        with self._errors_explained("read", name):
            self.fs.invalidate_cache()
            found: Mapping[str, Any] | None = _unless_missing(lambda: self.fs.info(f"{self.root}/{name}"))
        return found if found and found["type"] == "file" else None

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; missing ones are skipped."""
        paths = [f"{self.root}/{name}" for name in names]
        with self._errors_explained("delete", ""), ThreadPoolExecutor(_DELETED_AT_ONCE) as threads:
            list(threads.map(self._delete, paths))

    def _delete(self, path: str) -> None:
        """Delete one object: s3fs does not report refusals of a request that deletes many."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(path)

    @contextmanager
    def _errors_explained(self, operation: str, name: str) -> Iterator[None]:
        try:
            yield
        except RemoteError:
            raise
        except Exception as error:  # of s3fs, botocore, gcsfs, aiohttp, google.auth: none need be installed
            if isinstance(error, OSError) and error.errno in _FULL:  # of the local disk
                raise
            raise explained(error, f"{self.url}/{name}".rstrip("/"), operation) from error


def _unless_missing(operation: Callable[[], T]) -> T | None:
    """Return an operation's result; None if its object does not exist, but its bucket does."""
    try:
        return operation()
    except FileNotFoundError as error:
        if no_bucket(error):
            raise
        return None


class _ProgressCallback(Callback):  # type: ignore[misc]
    """Calls a function with the bytes transferred."""

    def __init__(self, progress: Progress | None) -> None:
        super().__init__()
        self._progress = progress

    def call(self, *args: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress(self.value, self.size or 0)


#: Variables that a filesystem reads when it is made; other values need another filesystem.
_ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "STORAGE_EMULATOR_HOST")


@cache
def _filesystem(protocol: str, *environment: str | None) -> AbstractFileSystem:
    """Return the filesystem of a protocol, which holds the connections.

    Raises:
        ValueError: if the protocol is unknown, or a package is missing.
    """
    if protocol in EXTRAS:
        extra = EXTRAS[protocol]
        try:
            import_module(f"{extra}fs")
        except ImportError as error:
            raise ValueError(f"{protocol}://: needs {extra}fs: {install_hint(extra)}") from error
    try:
        kind = Disk if protocol == "file" else get_filesystem_class(protocol)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{protocol}://: {error}; s3:// and gs:// are what is tested") from error
    options = {"auto_mkdir": True} if protocol == "file" else {"use_listings_cache": False}
    filesystem: AbstractFileSystem = kind(skip_instance_cache=True, **options)
    return filesystem
