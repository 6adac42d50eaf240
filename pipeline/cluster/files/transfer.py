"""What a spec names on the driver's disk, brought to the nodes of a cluster that lack it: to each once, as it is asked.

The driver has an actor beside it that reads its disk. A worker asks it for what its node lacks, and unpacks that
into the node's cache; the node's other workers wait for the lock, and find it there.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.files.bundle import PIECE, Parcel, Stream, content_digest, pack, same, unpack
from pipeline.cluster.files.spec_files import FieldPath, NamedFile, moved, named_files
from pipeline.spec.run import RunSpec
from tasks.files.cache import cache_root, cached

#: Pieces that a node has asked for and not unpacked yet: the next is on its way while one is written.
_AHEAD = 2


class _Sender:
    """The actor on the driver's node; all that it knows it can find out again, so that it may be started anew."""

    def __init__(self) -> None:
        self._parcels: dict[NamedFile, Parcel] = {}
        self._digests: dict[NamedFile, str] = {}
        self._sent: Counter[tuple[str, str]] = Counter()

    def parcel(self, named: NamedFile) -> Parcel:
        if named not in self._parcels:
            self._parcels[named] = _pack(named)
        return self._parcels[named]

    def digest(self, named: NamedFile) -> str:
        if named not in self._digests:
            self._digests[named] = content_digest(self.parcel(named))
        return self._digests[named]

    def piece(self, named: NamedFile, start: int, node: str) -> bytes:
        data = Stream(self.parcel(named)).read(start)
        self._sent[node, named.path] += len(data)
        return data

    def sent(self) -> dict[tuple[str, str], int]:
        return dict(self._sent)


def _pack(named: NamedFile) -> Parcel:
    return pack(Path(named.path), named.kind, named.below)


@dataclass(frozen=True)
class Shipment:
    """Called in a worker with the run's spec: gives the spec as the worker's node must read it.

    Attributes:
        home: the driver's node, which sees the driver's files.
        files: what the spec names there.
        sender: the actor that reads them.
    """

    home: str
    files: Mapping[FieldPath, NamedFile]
    sender: Any

    def __call__(self, spec: RunSpec) -> RunSpec:
        """The spec with this node's places of the files; what the node has not is fetched first.

        Raises:
            ValueError: no space left in the node's cache, or a file changed while it was sent.
        """
        if (node := ray.get_runtime_context().get_node_id()) == self.home:
            return spec
        here = {named: self._here(named, node) for named in dict.fromkeys(self.files.values())}
        return moved(spec, {place: f"{n.prefix}{here[n]}{n.suffix}" for place, n in self.files.items()})

    def _here(self, named: NamedFile, node: str) -> str:
        parcel: Parcel = ray.get(self.sender.parcel.remote(named))
        if _sees(named, parcel):
            return named.path
        digest: str = ray.get(self.sender.digest.remote(named))
        folder = cached(
            cache_root() / "shipped" / digest,
            lambda partial: unpack(parcel, digest, self._pieces(named, parcel.size, node), partial),
        )
        return str(folder / parcel.name)

    def _pieces(self, named: NamedFile, size: int, node: str) -> Iterator[bytes]:
        asked: deque[Any] = deque()
        for start in range(0, size, PIECE):
            asked.append(self.sender.piece.remote(named, start, node))
            if len(asked) > _AHEAD:
                yield ray.get(asked.popleft())
        while asked:
            yield ray.get(asked.popleft())


def _sees(named: NamedFile, parcel: Parcel) -> bool:
    try:
        return same(_pack(named), parcel)
    except (OSError, ValueError):
        return False


@contextmanager
def shipment(spec: RunSpec) -> Iterator[Shipment | None]:
    """For as long as workers may start; None where the spec names nothing that nodes could lack."""
    files = named_files(spec)
    if not files:
        yield None
        return
    home = ray.get_runtime_context().get_node_id()
    beside = NodeAffinitySchedulingStrategy(home, soft=False)
    # Restarted where it dies, and asked again: it holds nothing that it could not read anew.
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": beside}
    sender: Any = ray.remote(_Sender).options(**options).remote()
    try:
        yield Shipment(home, files, sender)
    finally:
        ray.kill(sender)
