"""Bundles of files that one machine sends to another: listed, compared, streamed and unpacked."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Literal

from tasks.files.models import COMPANIONS

#: Bytes of the stream that are sent at once.
PIECE = 16 * 2**20
#: tree: a folder with all subfolders, or a file alone; model: a folder's own files, or a file and its companions.
BundleKind = Literal["tree", "model"]
#: Training state in a model's folder, often larger than the model.
_TRAINING_STATE = ("optimizer.*", "scheduler.*", "scaler.*", "rng_state*", "training_args.bin")
#: Number of files of a bundle whose ends are compared, and bytes of each end.
_SAMPLED, _END = 64, 64 * 2**10


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file, or a folder, whose name ends in a slash: an empty folder may be a class without images.

    Attributes:
        name: path within the bundle, with slashes.
        path: path on the machine that has it.
        size: in bytes.
        mtime_ns: time of the last modification.
    """

    name: str
    path: str
    size: int = 0
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file or folder of a spec, with all files that are read with it.

    Attributes:
        name: name of that file or folder within the bundle.
        entries: sorted by name.
        sample: hash of both ends of some files.
        sampled: whether these ends are all bytes of all files.
    """

    name: str
    entries: tuple[FileEntry, ...]
    sample: str
    sampled: bool

    @property
    def size(self) -> int:
        """Total bytes of the files."""
        return sum(entry.size for entry in self.entries)


def make_bundle(path: Path, kind: BundleKind, below: str = ".") -> Bundle:
    """List a file with its companions, or a folder. Links are followed: other machines may lack their targets.

    Args:
        path: the file or folder.
        kind: how much of a folder is needed.
        below: the only subfolder of `path` that is needed.

    Raises:
        ValueError: if a link of the folder leads back to a folder above it.
        OSError: if it cannot be read.
    """
    name = path.name or "files"
    if path.is_dir():
        root = PurePosixPath(name) / below
        found = [FileEntry(f"{root}/", str(path / below))]
        found += _tree(path / below, root, ()) if kind == "tree" else _files(path / below, root)
    else:
        found = [_entry(file, PurePosixPath(file.relative_to(path.parent))) for file in _with_companions(path, kind)]
    entries = tuple(sorted(found, key=lambda entry: entry.name))
    return Bundle(name, entries, *_sample(entries))


def _entry(path: Path, name: PurePosixPath) -> FileEntry:
    stat = path.stat()
    return FileEntry(str(name), str(path), stat.st_size, stat.st_mtime_ns)


def _files(folder: Path, name: PurePosixPath) -> list[FileEntry]:
    files = (path for path in folder.iterdir() if path.is_file())
    kept = [path for path in files if not any(fnmatch(path.name, pattern) for pattern in _TRAINING_STATE)]
    return [_entry(path, name / path.name) for path in kept]


def _tree(folder: Path, name: PurePosixPath, above: tuple[tuple[int, int], ...]) -> Iterator[FileEntry]:
    stat = folder.stat()
    if (here := (stat.st_dev, stat.st_ino)) in above:
        raise ValueError(f"{folder}: a link leads back to a folder above it: remove the link")
    for path in folder.iterdir():
        if path.is_dir():
            yield FileEntry(f"{name / path.name}/", str(path))
            yield from _tree(path, name / path.name, (*above, here))
        elif path.is_file():
            yield _entry(path, name / path.name)


def _with_companions(path: Path, kind: BundleKind) -> list[Path]:
    if kind != "model":
        return [path]
    companions = [path.parent / name for name in COMPANIONS]
    if path.suffix == ".json":  # an architecture: with its vocabulary and the configuration of timm's tower
        companions += [*path.parent.glob("bpe_*.txt.gz"), *path.parent.glob("*/config.json")]
    return [path, *(file for file in companions if file.is_file() and file != path)]


def same_files(one: Bundle, other: Bundle) -> bool:
    """Whether two machines have the same files, without reading large files.

    All names and sizes must agree, and the bytes at both ends of up to 64 files; unless these ends are all bytes, the
    times of modification must agree too, to the nanosecond, as on a shared disk. A wrong result would be found when a
    worker reports the fingerprints of what it has loaded.
    """
    times = not one.sampled
    entries, other_entries = (
        [(entry.name, entry.size, entry.mtime_ns * times) for entry in bundle.entries] for bundle in (one, other)
    )
    return one.sample == other.sample and entries == other_entries


def _sample(entries: Sequence[FileEntry]) -> tuple[str, bool]:
    """Return the hash of both ends of some files, spread over all, and whether that is every byte."""
    files = [entry for entry in entries if not entry.name.endswith("/")]
    some = files[:: max(1, -(-len(files) // _SAMPLED))]
    state = hashlib.blake2b(digest_size=16)
    for entry in some:
        with open(entry.path, "rb") as file:
            state.update(file.read(_END))
            file.seek(max(file.tell(), entry.size - _END))
            state.update(file.read(_END))
    return state.hexdigest(), len(some) == len(files) and all(entry.size <= 2 * _END for entry in files)


class Stream:
    """The concatenated bytes of a bundle's files."""

    def __init__(self, bundle: Bundle) -> None:
        """Prepare; nothing is read yet."""
        self._entries = [entry for entry in bundle.entries if entry.size]
        self._ends = list(accumulate(entry.size for entry in self._entries))

    def read(self, start: int, length: int = PIECE) -> bytes:
        """Return `length` bytes from `start` on; fewer at the end.

        Raises:
            ValueError: if a file has become shorter since it was listed.
            OSError: if a file cannot be read any more.
        """
        parts = []
        for i in range(bisect_right(self._ends, start), len(self._entries)):
            entry, first = self._entries[i], self._ends[i] - self._entries[i].size
            with open(entry.path, "rb") as file:
                file.seek(start - first)
                size = min(length, self._ends[i] - start)
                part = file.read(size)
            if len(part) != size:
                raise ValueError(f"{entry.path}: is shorter than when the run began: do not change it during a run")
            parts.append(part)
            start, length = start + size, length - size
            if not length:
                break
        return b"".join(parts)


def content_digest(bundle: Bundle) -> str:
    """Return the hash of names, sizes and bytes, which names the unpacked bundle on every machine."""
    state, stream = _header_hash(bundle), Stream(bundle)
    for start in range(0, bundle.size, PIECE):
        state.update(stream.read(start))
    return state.hexdigest()


def _header_hash(bundle: Bundle) -> "hashlib.blake2b":
    state = hashlib.blake2b(digest_size=16)
    for entry in bundle.entries:
        state.update(f"{entry.name}\0{entry.size}\0".encode())
    return state


def unpack(bundle: Bundle, digest: str, pieces: Iterable[bytes], folder: Path) -> None:
    """Write the files of a bundle into a new `folder` as their bytes arrive.

    Raises:
        ValueError: if the bytes do not have the hash `digest`, or a name leads out of the folder.
        OSError: if they cannot be written.
    """
    state, left = _header_hash(bundle), memoryview(b"")
    arriving = iter(pieces)
    folder.mkdir()
    for entry in bundle.entries:
        path = folder / _inside(entry.name)
        if entry.name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            missing = entry.size
            while missing:
                left = left or memoryview(next(arriving, b""))
                if not left:
                    raise ValueError(f"{entry.path}: {missing} of its bytes are missing")
                part, left = left[:missing], left[missing:]
                state.update(part)
                missing -= file.write(part)
    if state.hexdigest() != digest:
        raise ValueError(
            f"{bundle.name}: changed on the driver's disk while it was sent: do not change it during a run"
        )


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{name!r}: the name leads out of its folder")
    return path
