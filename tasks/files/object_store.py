"""Places in object stores and on shared disks, by fsspec: a few operations, and errors that say what to do."""

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
from typing import Any
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem, get_filesystem_class
from fsspec.callbacks import Callback

from tasks.files.local_store import Disk
from tasks.files.store_errors import EXTRAS, RemoteError, credentials, explained, http_status, no_bucket

Progress = Callable[[int, int], None]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PRECONDITION_FAILED = 412
_DELETED_AT_ONCE = 16


def is_url(text: str) -> bool:
    """Whether `text` names a place by a URL, such as s3://bucket/folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def check_url(url: str) -> None:
    """A URL is a protocol, a bucket and a path.

    Raises:
        ValueError: it holds credentials or a query, which would end up in journals and logs, or names no bucket.
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
    """Fsspec takes such characters for patterns: what was meant for one folder would be done to others."""
    if strange := sorted(set(place) & set("*?[]")):
        raise ValueError(f"{place}: must not contain {' or '.join(strange)}: give another place")


@dataclass(frozen=True)
class StoreFolder:
    """A folder of an object store, or of a disk.

    Attributes:
        url: as a user writes it, without a slash at the end.
        fs: who reads and writes there.
        root: the folder as `fs` names it.
    """

    url: str
    fs: AbstractFileSystem
    root: str

    @classmethod
    def open(cls, url: str) -> "StoreFolder":
        """The place that a URL, or a path, names; nothing is asked of the store yet.

        Raises:
            ValueError: the URL holds credentials, its protocol is not known, or a package is missing.
        """
        if not is_url(url):
            _check_plain(url)
            fs = _filesystem("file")
            return cls(url.rstrip("/"), fs, str(Path(url).expanduser().absolute()))
        check_url(url)
        fs = _filesystem(urlsplit(url).scheme.lower(), *map(os.environ.get, _ENVIRONMENT))
        return cls(url.rstrip("/"), fs, str(fs._strip_protocol(url)).rstrip("/"))

    def __truediv__(self, name: str) -> "StoreFolder":
        """A folder, or an object, below."""
        return StoreFolder(f"{self.url}/{name}", self.fs, f"{self.root}/{name}")

    @property
    def creates_alone(self) -> bool:
        """Whether of two that create the same object one is refused: fsspec's own way is to look, and then to write."""
        its_own = getattr(self.fs.pipe_file, "__func__", None) is not AbstractFileSystem.pipe_file
        return its_own and not isinstance(self.fs, Disk)

    def read(self, name: str) -> bytes | None:
        """An object's content; None where there is no such object.

        Raises:
            RemoteError: the store refuses; there is no such bucket.
        """
        with self._told("read", name):
            try:
                return bytes(self.fs.cat_file(f"{self.root}/{name}"))
            except FileNotFoundError as error:
                if no_bucket(error):
                    raise
                return None

    def read_many(self, names: Iterable[str]) -> dict[str, bytes | None]:
        """Many objects at once; None for each that is not there.

        Raises:
            RemoteError: the store refuses.
        """
        paths = {f"{self.root}/{name}": name for name in names}
        if not paths:
            return {}
        with self._told("read", ""):
            found = self.fs.cat(list(paths), on_error="return")
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
        return {n: None if isinstance(c := found[p], Exception) else bytes(c) for p, n in paths.items()}

    def create(self, name: str, data: bytes) -> bool:
        """Write a new object, in one step; False, and nothing written, where there is one of that name.

        In a store that does not `creates_alone`, two that create it at the same time may both succeed.

        Raises:
            RemoteError: the store refuses.
        """
        with self._told("write", name):
            try:
                self.fs.pipe_file(f"{self.root}/{name}", data, mode="create")
            except Exception as error:  # of packages that need not be installed
                if isinstance(error, FileExistsError) or http_status(error) == _PRECONDITION_FAILED:
                    return False
                raise
        return True

    def write(self, name: str, data: bytes) -> None:
        """Write an object, in one step, over whatever had that name.

        Raises:
            RemoteError: the store refuses.
        """
        with self._told("write", name):
            self.fs.pipe_file(f"{self.root}/{name}", data)

    def upload(self, path: Path, name: str) -> None:
        """Write a file as an object.

        Raises:
            RemoteError: the store refuses.
        """
        with self._told("write", name):
            self.fs.put_file(str(path), f"{self.root}/{name}")

    def download(self, name: str, path: Path, progress: Progress | None = None) -> None:
        """Write an object to a file.

        Raises:
            RemoteError: the store refuses, or there is no such object.
        """
        with self._told("read", name):
            self.fs.get_file(f"{self.root}/{name}", str(path), callback=_Told(progress))

    def entries(self, folder: str = "") -> dict[str, Mapping[str, Any]]:
        """What lies at any depth below a folder: names as from here, and what the store says of each.

        Raises:
            RemoteError: the store refuses.
        """
        below = f"{self.root}/{folder}".rstrip("/")
        with self._told("list", folder):
            self.fs.invalidate_cache()
            found = self.fs.find(below, detail=True)
        names = {str(path)[len(self.root) + 1 :]: info for path, info in found.items()}
        return {name: info for name, info in names.items() if info["type"] == "file" and name}

    def info(self, name: str) -> Mapping[str, Any] | None:
        """What the store says of an object; None where there is none of that name.

        Raises:
            RemoteError: the store refuses; there is no such bucket.
        """
        with self._told("read", name):
            try:
                self.fs.invalidate_cache()
                found: Mapping[str, Any] = self.fs.info(f"{self.root}/{name}")
            except FileNotFoundError as error:
                if no_bucket(error):
                    raise
                return None
        return found if found["type"] == "file" else None

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are passed over.

        Raises:
            RemoteError: the store refuses.
        """
        paths = [f"{self.root}/{name}" for name in names]
        with self._told("delete", ""), ThreadPoolExecutor(_DELETED_AT_ONCE) as threads:
            list(threads.map(self._delete, paths))

    def _delete(self, path: str) -> None:
        """One alone: where many are deleted in one request, s3fs does not tell of those that are refused."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(path)

    @contextmanager
    def _told(self, operation: str, name: str) -> Iterator[None]:
        try:
            yield
        except RemoteError:
            raise
        except OSError as error:
            if error.errno in _FULL:  # of the disk here
                raise
            raise explained(error, f"{self.url}/{name}".rstrip("/"), operation) from error
        except Exception as error:  # of s3fs, botocore, gcsfs, aiohttp, google.auth: none need be installed
            raise explained(error, f"{self.url}/{name}".rstrip("/"), operation) from error


class _Told(Callback):  # type: ignore[misc]
    """Tells a function how many bytes have come."""

    def __init__(self, progress: Progress | None) -> None:
        super().__init__()
        self._progress = progress

    def call(self, *args: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress(self.value, self.size or 0)


#: What a filesystem reads on its creation, so that another value needs another filesystem.
_ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "STORAGE_EMULATOR_HOST")


@cache
def _filesystem(protocol: str, *environment: str | None) -> AbstractFileSystem:
    """One filesystem for each protocol: it holds the connections.

    Raises:
        ValueError: no such protocol, or a package is missing.
    """
    if protocol in EXTRAS:
        try:
            import_module(f"{EXTRAS[protocol]}fs")
        except ImportError as error:
            extra = EXTRAS[protocol]
            raise ValueError(f"{protocol}://: needs {extra}fs: pip install 'lines-sweep[{extra}]'") from error
    try:
        kind = Disk if protocol == "file" else get_filesystem_class(protocol)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{protocol}://: {error}; s3:// and gs:// are what is tested") from error
    options = {"auto_mkdir": True} if protocol == "file" else {"use_listings_cache": False}
    filesystem: AbstractFileSystem = kind(skip_instance_cache=True, **options)
    return filesystem
