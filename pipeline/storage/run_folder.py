"""The folder of a run, which may be a URL: a run in an object store is worked in a local copy and uploaded."""

import atexit
import json
import shutil
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.errors import LockedError
from pipeline.records.append_log import whole_length
from pipeline.records.journal import FILE_NAME
from pipeline.storage import lease as leases
from pipeline.storage.lease import Lease, Notify
from pipeline.storage.segments import FOLDER, Chain
from pipeline.storage.uploader import Uploader
from tasks.files.atomic import PARTIAL, write_whole
from tasks.files.cache import cache_root
from tasks.files.locks import locked
from tasks.files.object_store import StoreFolder, check_url, is_url
from tasks.files.store_errors import RemoteError

#: Files only in the local copy: the chain that it follows, its lock, and a journal that differed from the store's.
_STATE, _LOCK, _SUPERSEDED = "mirror.json", "mirror.lock", "journal.superseded.jsonl"
_LOCAL = (FILE_NAME, _STATE, _LOCK, _SUPERSEDED)

#: Copies of runs that are read repeatedly: their segments in memory, and the store's information on each file.
_segments: defaultdict[Path, dict[str, tuple[str, bytes]]] = defaultdict(dict)
_marks: defaultdict[Path, dict[str, str]] = defaultdict(dict)


@dataclass(frozen=True)
class OpenRun:
    """A run that is open for writing.

    Attributes:
        folder: the run's folder, or the local copy of one in a store.
        check: raises the error of the upload, if any; call it from time to time.
        upload: uploads the files next to the journal now, for readers of the unfinished run.
    """

    folder: Path
    check: Callable[[], None] = lambda: None
    upload: Callable[[], None] = lambda: None


@contextmanager
def run_folder(place: str, *, write: bool = False) -> Iterator[Path]:
    """Yield the folder of the run at `place` for reading, also while another process works the run.

    For a URL this is a copy, at the same path each time within a process; opened again, it is updated.

    Args:
        place: a path, or a URL such as s3://bucket/runs/my-sweep.
        write: whether files that the block writes are uploaded to `place`; the journal never is.

    Raises:
        RemoteError: if the store refuses.

    Example:
        >>> with run_folder("s3://bucket/runs/my-sweep") as folder:
        ...     candidates = tables.read(folder / "candidates.parquet", tables.CANDIDATES)
    """
    if not is_url(place):
        yield Path(place)
        return
    remote = StoreFolder.open(place)
    folder = copy_of(remote.url)
    _download(remote, folder)
    before = _files(folder)
    yield folder
    if write:
        _upload(remote, folder, (name for name, stamp in _files(folder).items() if stamp != before.get(name)))


@contextmanager
def open_run(place: str, notify: Notify = lambda text: None) -> Iterator[OpenRun]:
    """Open a run for writing; for a URL its journal is uploaded while the block works, and its files at the end.

    Args:
        place: a path, or a URL.
        notify: called with lines for the user.

    Raises:
        LockedError: if another run is writing there.
        RemoteError: if the store refuses; what was scored is kept in the local copy, and uploaded at the next start.
        ValueError: if the folder cannot be written.

    Example:
        >>> with open_run("s3://bucket/runs/my-sweep", print) as opened:
        ...     journal = Journal(opened.folder)
        ...     journal.answers(scores)
        ...     opened.check()
        ...     journal.close()
    """
    if not is_url(place):
        if not place:
            raise ValueError("--out: must name a folder, got no text; . is the current one")
        check_writable(Path(place))
        yield OpenRun(Path(place))
        return
    remote = StoreFolder.open(place)
    folder = mirror_of(remote.url)
    folder.mkdir(parents=True, exist_ok=True)
    hint = "wait for it, stop it, or give another --out"
    busy = LockedError(f"{remote.url}: another run on this machine is writing there: {hint}")
    chain = Chain(remote, writer=uuid.uuid4().hex)
    with locked(folder / _LOCK, busy), _leased(remote, chain.writer, notify) as lease:
        _follow(chain, _journal_of(remote, chain), folder, notify)
        uploader = Uploader(chain, lease, folder / FILE_NAME, lambda: _remember(folder, chain))
        uploader.start()
        try:
            yield OpenRun(folder, uploader.check, lambda: _upload(remote, folder, _files(folder)))
        finally:
            with _hint(f"what was scored is kept in {folder}, and uploaded at the next start"):
                uploader.close()
        with _hint(f"the journal is whole there: `lines report {remote.url}` writes the rest"):
            _upload(remote, folder, _files(folder))


@contextmanager
def _leased(remote: StoreFolder, owner: str, notify: Notify) -> Iterator[Lease]:
    lease = Lease(remote, owner)
    lease.acquire(notify)
    try:
        yield lease
    finally:
        try:
            lease.release()
        except RemoteError as error:
            notify(f"{error}; the next run there waits a minute before it starts")


@contextmanager
def _hint(text: str) -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise RemoteError(f"{error}; {text}") from error


def mirror_of(url: str) -> Path:
    """Return the folder in which this machine works a run at a URL."""
    return cache_root() / "runs" / _relative(url)


def copy_of(url: str) -> Path:
    """Return the folder to which this process copies a run that it only reads."""
    return _copies() / _relative(url)


def _journal_of(remote: StoreFolder, chain: Chain) -> bytes:
    """Return the journal in the store: its segments, or the file of a copied folder that has more lines than they."""
    log, copied = chain.read(), remote.info(FILE_NAME)
    if copied is None or copied["size"] <= len(log):
        return log
    data = remote.read(FILE_NAME) or b""
    whole = data[: data.rfind(b"\n") + 1]
    return whole if whole.startswith(log) else log


def _follow(chain: Chain, log: bytes, folder: Path, notify: Notify) -> None:
    """Make the local journal start with the store's `log`, and keep lines that an earlier run could not upload."""
    journal, state = folder / FILE_NAME, folder / _STATE
    followed = json.loads(state.read_text())["chain"] if state.exists() else ""
    here = journal.read_bytes()[: whole_length(journal)] if journal.exists() else b""
    if here.startswith(log) and followed in ("", chain.id):
        if more := len(here) - len(log):
            notify(
                f"{folder}: {more:,} bytes of the journal were not sent to the store by an earlier run: they are now"
            )
        _remember(folder, chain)
        return
    if not log.startswith(here):
        journal.replace(folder / _SUPERSEDED)
        for name in _files(folder):  # results of that journal, not of this run
            (folder / name).unlink()
        notify(f"{folder}: its journal is not the store's, which counts; it was put aside as {_SUPERSEDED}")
    write_whole(journal, log)
    _remember(folder, chain)


def _remember(folder: Path, chain: Chain) -> None:
    write_whole(folder / _STATE, json.dumps({"chain": chain.id}))


def _download(remote: StoreFolder, folder: Path) -> None:
    """Copy a run from the store; a copy that is read once leaves no segments in memory."""
    kept = _segments[folder] if folder.exists() else None
    folder.mkdir(parents=True, exist_ok=True)
    log = _journal_of(remote, Chain(remote, writer="", kept=kept))
    if log:
        write_whole(folder / FILE_NAME, log)
    for name, info in remote.entries().items():
        if name.startswith(f"{FOLDER}/") or name in (FILE_NAME, leases.NAME) or not _is_inside(name):
            continue
        target, mark = folder / name, repr(info)
        if not target.exists() or _marks[folder].get(name) != mark:
            target.parent.mkdir(parents=True, exist_ok=True)
            remote.download(name, target)
            _marks[folder][name] = mark


def _is_inside(name: str) -> bool:
    """Return whether an object's name is a path below its folder: a name may hold `..`, or start with a slash."""
    return not {"", ".", ".."} & set(name.split("/"))


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the files that are uploaded as they are, with their time and size."""
    found = {}
    others = [path.parent for path in folder.rglob(_LOCK) if path.parent != folder]  # runs below this one
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(path.is_relative_to(other) for other in others):
            continue
        if name not in _LOCAL and path.suffix != PARTIAL:
            stat = path.stat()
            found[name] = (stat.st_mtime_ns, stat.st_size)
    return found


def _upload(remote: StoreFolder, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        remote.upload(folder / name, name)


def _relative(url: str) -> Path:
    """Return a URL as a path below a folder of runs: s3/bucket/runs/x for `s3://bucket/runs/x`."""
    check_url(url)
    protocol, _, rest = url.partition("://")
    parts = [part for part in rest.split("/") if part]
    if ".." in parts:
        raise ValueError(f"{url}: must not contain '..'")
    return Path(protocol.lower(), *parts)


@cache
def _copies() -> Path:
    """Return the folder for copies, which is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="lines-sweep-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def check_writable(folder: Path) -> None:
    """Raise ValueError if a command cannot write in the folder that --out names, before anything is prepared."""
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise ValueError(f"{folder}: {parent} is not a folder: give another --out")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        hint = "give another --out, or change its permissions"
        raise ValueError(f"{folder}: cannot write in {parent} ({error.strerror}): {hint}") from error
