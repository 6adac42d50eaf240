"""A run's folder wherever it is: on a disk as it lies, or in an object store by way of a folder here."""

import atexit
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.errors import LockedError
from pipeline.records.append_log import whole_length
from pipeline.records.journal import FILE_NAME
from pipeline.storage import lease as leases
from pipeline.storage.lease import Lease, Say
from pipeline.storage.segments import FOLDER, Chain
from pipeline.storage.uploader import Shipper
from tasks.files.atomic import PARTIAL, write_whole
from tasks.files.cache import cache_root
from tasks.files.locks import locked
from tasks.files.object_store import StoreFolder, check_url, is_url
from tasks.files.store_errors import RemoteError

#: Of a mirror alone: which log it follows, its lock, and a log that was not what the store held.
_STATE, _LOCK, _ASIDE = "mirror.json", "mirror.lock", "journal.superseded.jsonl"
_OWN = (FILE_NAME, _STATE, _LOCK, _ASIDE)


@dataclass(frozen=True)
class OpenRun:
    """A run that is being worked.

    Attributes:
        folder: where it is worked: its own folder, or the mirror of one in a store.
        check: raises what has gone wrong with keeping it, if anything has: called now and then while the run works.
        keep: has the files that lie beside the journal kept now, for those who look on while the run works.
    """

    folder: Path
    check: Callable[[], None] = lambda: None
    keep: Callable[[], None] = lambda: None


@contextmanager
def run_folder(place: str, *, write: bool = False) -> Iterator[Path]:
    """The folder of the run at `place`, a path or a URL, for as long as the block lasts.

    Of a URL it is a copy of what the store holds by now, at the same place each time within a process: opened again, it
    is brought up to date. A run in progress can be read; to work one there is `open_run`.

    Args:
        place: a path, or a URL such as s3://bucket/runs/my-sweep.
        write: whether the files that the block writes there are to be kept at `place`; the journal never is.

    Raises:
        RemoteError: the store refuses.
    """
    if not is_url(place):
        yield Path(place)
        return
    remote = StoreFolder.open(place)
    folder = copy_of(remote.url)
    _fetch(remote, folder)
    before = _stamps(folder)
    yield folder
    if write:
        after = _stamps(folder)
        _upload(remote, folder, [name for name in after if after[name] != before.get(name)])


@contextmanager
def open_run(place: str, say: Say = lambda text: None) -> Iterator[OpenRun]:
    """Open a run to work it; what it appends to its journal is kept at `place` while it works, the rest at the end.

    Args:
        place: a path, or a URL.
        say: told what a person should know.

    Raises:
        LockedError: another run is writing there.
        RemoteError: the store refuses, or no longer takes what the run writes: that is kept here, and the next start
            sends it on.
        ValueError: a folder that cannot be written.
    """
    if not is_url(place):
        _check_writable(Path(place))
        yield OpenRun(Path(place))
        return
    remote = StoreFolder.open(place)
    folder = mirror_of(remote.url)
    folder.mkdir(parents=True, exist_ok=True)
    hint = "wait for it, stop it, or give another --out"
    with locked(folder / _LOCK, LockedError(f"{remote.url}: another run on this machine is writing there: {hint}")):
        yield from _worked(remote, folder, say)


def mirror_of(url: str) -> Path:
    """Where this machine works a run whose folder is a URL."""
    return cache_root() / "runs" / _relative(url)


def copy_of(url: str) -> Path:
    """Where this process copies a run to that it only reads."""
    return _copies() / _relative(url)


def _worked(remote: StoreFolder, folder: Path, say: Say) -> Iterator[OpenRun]:
    writer = uuid.uuid4().hex
    lease, chain = Lease(remote, writer), Chain(remote, writer)
    lease.acquire(say)
    shipper = Shipper(chain, lease, folder / FILE_NAME, lambda: _remember(folder, chain))
    try:
        _follow(chain, _start(remote, chain), folder, say)
        shipper.start()
        try:
            yield OpenRun(folder, shipper.check, lambda: _upload(remote, folder, list(_stamps(folder))))
        finally:
            with _kept_here(folder):
                shipper.close()
        with _journal_is_there(remote.url):
            _upload(remote, folder, list(_stamps(folder)))
    finally:
        _release(lease, say)


@contextmanager
def _kept_here(folder: Path) -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise RemoteError(f"{error}; what was scored is kept in {folder}, and sent on at the next start") from error


@contextmanager
def _journal_is_there(url: str) -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise RemoteError(f"{error}; the journal is whole there: `lines report {url}` writes the rest") from error


def _release(lease: Lease, say: Say) -> None:
    try:
        lease.release()
    except RemoteError as error:
        say(f"{error}; the next run there waits a minute before it starts")


def _start(remote: StoreFolder, chain: Chain) -> bytes:
    """What the store holds of the journal; of a folder that was copied there its file, until all of that is sent."""
    log, copied = chain.read(), remote.info(FILE_NAME)
    if copied is None or copied["size"] <= len(log):
        return log
    data = remote.read(FILE_NAME) or b""
    whole = data[: data.rfind(b"\n") + 1]
    return whole if whole.startswith(log) else log


def _follow(chain: Chain, log: bytes, folder: Path, say: Say) -> None:
    """Have the journal here begin with what the store holds; what an earlier run could not send on stays behind it."""
    journal, state = folder / FILE_NAME, folder / _STATE
    followed = json.loads(state.read_text())["chain"] if state.exists() else ""
    here = journal.read_bytes()[: whole_length(journal)] if journal.exists() else b""
    if here.startswith(log) and followed in ("", chain.id):
        if more := len(here) - len(log):
            say(f"{folder}: {more:,} bytes of the journal were not sent to the store by an earlier run: they are now")
        _remember(folder, chain)
        return
    if not log.startswith(here):
        journal.replace(folder / _ASIDE)
        for name in _stamps(folder):  # of that run, made from its journal: not to be sent as this one's
            (folder / name).unlink()
        say(f"{folder}: the journal here is not what the store holds, which counts; it was put aside as {_ASIDE}")
    write_whole(journal, log)
    _remember(folder, chain)


def _remember(folder: Path, chain: Chain) -> None:
    write_whole(folder / _STATE, json.dumps({"chain": chain.id}))


def _fetch(remote: StoreFolder, folder: Path) -> None:
    """Copy what the store holds of a run."""
    again = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    log = _start(remote, Chain(remote, writer="", kept=_objects(folder) if again else None))
    if log:
        write_whole(folder / FILE_NAME, log)
    for name, info in remote.entries().items():
        if name.startswith(f"{FOLDER}/") or name in (FILE_NAME, leases.NAME) or not _inside(name):
            continue
        target, mark = folder / name, _mark(info)
        if not target.exists() or _marks(folder).get(name) != mark:
            target.parent.mkdir(parents=True, exist_ok=True)
            remote.download(name, target)
            _marks(folder)[name] = mark


def _inside(name: str) -> bool:
    """Whoever filled the bucket has named its objects: of a//b/c the folder's part is the absolute path /b/c."""
    return not {"", ".", ".."} & set(name.split("/"))


def _mark(info: object) -> str:
    return repr(info)


@cache
def _objects(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Objects of a log that is read again and again, as by a dashboard; one reading alone leaves none in memory."""
    return {}


@cache
def _marks(folder: Path) -> dict[str, str]:
    """What the store said of each file that lies here."""
    return {}


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Files that the store holds whole, and when they were written."""
    found = {}
    others = [path.parent for path in folder.rglob(_LOCK) if path.parent != folder]  # runs of their own
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(path.is_relative_to(other) for other in others):
            continue
        if name not in _OWN and path.suffix != PARTIAL:
            stat = path.stat()
            found[name] = (stat.st_mtime_ns, stat.st_size)
    return found


def _upload(remote: StoreFolder, folder: Path, names: list[str]) -> None:
    for name in names:
        remote.upload(folder / name, name)


def _relative(url: str) -> Path:
    """A URL as a path below a folder of runs: `s3://bucket/runs/x` is s3/bucket/runs/x."""
    check_url(url)
    protocol, _, rest = url.partition("://")
    parts = [part for part in rest.split("/") if part]
    if ".." in parts:
        raise ValueError(f"{url}: must not contain '..'")
    return Path(protocol.lower(), *parts)


@cache
def _copies() -> Path:
    """Where runs that are only read are copied to, until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="lines-sweep-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _check_writable(folder: Path) -> None:
    """Raises ValueError: a folder that the run cannot be kept in, said before anything is prepared."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise ValueError(f"{folder}: {there} is not a folder: give another --out")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        hint = "give another --out, or change its permissions"
        raise ValueError(f"{folder}: cannot write in {there} ({error.strerror}): {hint}") from error
