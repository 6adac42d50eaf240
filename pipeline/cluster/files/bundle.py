"""Files of one machine for another: what is listed, compared, read as one stream of bytes, and unpacked from it."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Literal

from tasks.files.models import COMPANIONS

#: Bytes of the stream that travel at once.
PIECE = 16 * 2**20
#: tree: a folder with all below it, or a file alone; model: a folder's own files, or a file and what is read beside it.
BundleKind = Literal["tree", "model"]
#: What the state of a training leaves beside a model, often larger than that.
_LEAVINGS = ("optimizer.*", "scheduler.*", "scaler.*", "rng_state*", "training_args.bin")
#: At most so many files of a folder are looked into, at both of their ends.
_SAMPLED, _END = 64, 64 * 2**10


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file, or a folder, whose name ends in a slash: an empty one may be a class without images.

    Attributes:
        name: below the parcel, with slashes.
        path: on the machine that has it.
        size: in bytes.
        mtime_ns: when it was written.
    """

    name: str
    path: str
    size: int = 0
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Parcel:
    """What belongs together, in the order of the names.

    Attributes:
        name: of the file or folder that is named, within the parcel.
        entries: sorted by name.
        sample: hash of the ends of some of the files.
        sampled: whether these ends are all of the files' bytes.
    """

    name: str
    entries: tuple[FileEntry, ...]
    sample: str
    sampled: bool

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


def pack(path: Path, kind: BundleKind, below: str = ".") -> Parcel:
    """List a file with what is read beside it, or a folder; links are followed, as their targets may not be elsewhere.

    Args:
        path: the file or folder.
        kind: how much of a folder is needed.
        below: the only part of the folder `path` that is needed.

    Raises:
        ValueError: a link of the folder leads back into itself.
        OSError: it cannot be read.
    """
    name = path.name or "files"
    if path.is_dir():
        root = PurePosixPath(name) / below
        found = [FileEntry(f"{root}/", str(path / below))]
        found += _tree(path / below, root, ()) if kind == "tree" else _files(path / below, root)
    else:
        found = [_entry(file, PurePosixPath(file.relative_to(path.parent))) for file in _with_companions(path, kind)]
    entries = tuple(sorted(found, key=lambda entry: entry.name))
    return Parcel(name, entries, *_sample(entries))


def _entry(path: Path, name: PurePosixPath) -> FileEntry:
    stat = path.stat()
    return FileEntry(str(name), str(path), stat.st_size, stat.st_mtime_ns)


def _files(folder: Path, name: PurePosixPath) -> list[FileEntry]:
    files = (path for path in folder.iterdir() if path.is_file())
    kept = [path for path in files if not any(fnmatch(path.name, left) for left in _LEAVINGS)]
    return [_entry(path, name / path.name) for path in kept]


def _tree(folder: Path, name: PurePosixPath, above: tuple[tuple[int, int], ...]) -> Iterator[FileEntry]:
    stat = folder.stat()
    if (here := (stat.st_dev, stat.st_ino)) in above:
        raise ValueError(f"{folder}: a link leads back to a folder above it: take it out")
    for path in folder.iterdir():
        if path.is_dir():
            yield FileEntry(f"{name / path.name}/", str(path))
            yield from _tree(path, name / path.name, (*above, here))
        elif path.is_file():
            yield _entry(path, name / path.name)


def _with_companions(path: Path, kind: BundleKind) -> list[Path]:
    if kind != "model":
        return [path]
    beside = [path.parent / name for name in COMPANIONS]
    if path.suffix == ".json":  # an architecture: its vocabulary, and the configuration of timm's tower, lie beside it
        beside += [*path.parent.glob("bpe_*.txt.gz"), *path.parent.glob("*/config.json")]
    return [path, *(file for file in beside if file.is_file() and file != path)]


def same(one: Parcel, other: Parcel) -> bool:
    """Whether two machines have the same files; large ones are not read for it.

    All must have the same size, and the same bytes at both ends of up to 64 of them; and the same time of writing, to
    the nanosecond, as on a disk that machines share, unless these ends are all that there is. Files that are taken for
    the same and are not would be found out when a worker tells the fingerprints of what it has loaded.
    """
    times = not one.sampled
    listed, listed_there = (
        [(entry.name, entry.size, entry.mtime_ns * times) for entry in parcel.entries] for parcel in (one, other)
    )
    return one.sample == other.sample and listed == listed_there


def _sample(entries: Sequence[FileEntry]) -> tuple[str, bool]:
    """Hash of the ends of some files, spread over all; and whether that is every byte."""
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
    """The files of a parcel, one behind the other, as bytes."""

    def __init__(self, parcel: Parcel) -> None:
        """Nothing is read yet."""
        self._entries = [entry for entry in parcel.entries if entry.size]
        self._ends = list(accumulate(entry.size for entry in self._entries))

    def read(self, start: int, length: int = PIECE) -> bytes:
        """Bytes from `start` on; fewer than `length` at the end.

        Raises:
            ValueError: a file is shorter than it was when it was listed.
            OSError: it cannot be read any more.
        """
        parts = []
        for i in range(bisect_right(self._ends, start), len(self._entries)):
            entry, first = self._entries[i], self._ends[i] - self._entries[i].size
            with open(entry.path, "rb") as file:
                file.seek(start - first)
                wanted = min(length, self._ends[i] - start)
                part = file.read(wanted)
            if len(part) != wanted:
                raise ValueError(f"{entry.path}: is shorter than it was when the run began: leave it as it is")
            parts.append(part)
            start, length = start + wanted, length - wanted
            if not length:
                break
        return b"".join(parts)


def content_digest(parcel: Parcel) -> str:
    """Hash of names, sizes and bytes: what the unpacked parcel is called, on whatever machine."""
    state, stream = _started(parcel), Stream(parcel)
    for start in range(0, parcel.size, PIECE):
        state.update(stream.read(start))
    return state.hexdigest()


def _started(parcel: Parcel) -> "hashlib.blake2b":
    state = hashlib.blake2b(digest_size=16)
    for entry in parcel.entries:
        state.update(f"{entry.name}\0{entry.size}\0".encode())
    return state


def unpack(parcel: Parcel, digest: str, pieces: Iterable[bytes], folder: Path) -> None:
    """Write the files of a parcel into a new `folder`, as their bytes arrive.

    Raises:
        ValueError: the bytes are not those of `digest`, or a name leads out of the folder.
        OSError: they cannot be written.
    """
    state, left = _started(parcel), memoryview(b"")
    arriving = iter(pieces)
    folder.mkdir()
    for entry in parcel.entries:
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
                    raise ValueError(f"{entry.path}: its bytes ended {missing} before their time")
                part, left = left[:missing], left[missing:]
                state.update(part)
                missing -= file.write(part)
    if state.hexdigest() != digest:
        raise ValueError(f"{parcel.name}: changed on the driver's disk while it was sent: leave it as it is")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{name!r}: a name that leads out of its folder")
    return path
