"""Transfer a spec's files from the driver's disk to the nodes that lack them: once to each node, on request.

An actor on the driver's node reads its disk. A worker asks it for the files that its node lacks, and unpacks them into
the node's cache; the node's other workers wait for the lock, and then find them there. Unlike the package of a
submitted job (`pipeline.cluster.jobs.package`), files of any size can be sent this way, but only while the driver runs.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.files.bundle import PIECE, Bundle, Stream, content_digest, same_files, unpack
from pipeline.cluster.files.spec_files import FieldPath, NamedFile, moved, named_files
from pipeline.spec.run import RunSpec
from tasks.files.cache import cache_root, cached

#: Pieces that a node has requested and not unpacked yet: the next arrives while one is written.
_AHEAD = 2


class _Sender:
    """The actor on the driver's node. It can compute its state again, so Ray may restart it."""

    def __init__(self) -> None:
        self._bundles: dict[NamedFile, Bundle] = {}
        self._digests: dict[NamedFile, str] = {}
        self._sent: Counter[tuple[str, str]] = Counter()

    def bundle(self, named: NamedFile) -> Bundle:
        if named not in self._bundles:
            self._bundles[named] = named.bundle()
        return self._bundles[named]

    def digest(self, named: NamedFile) -> str:
        if named not in self._digests:
            self._digests[named] = content_digest(self.bundle(named))
        return self._digests[named]

    def piece(self, named: NamedFile, start: int, node: str) -> bytes:
        data = Stream(self.bundle(named)).read(start)
        self._sent[node, named.path] += len(data)
        return data

    def sent(self) -> dict[tuple[str, str], int]:
        return dict(self._sent)


@dataclass(frozen=True)
class FileTransfer:
    """A `pipeline.workers.worker.Fetch`: called in a worker with the run's spec, returns the spec with local paths.

    Attributes:
        home: the driver's node, which has the files.
        files: the files that the spec names there.
        sender: the actor that reads them.
    """

    home: str
    files: Mapping[FieldPath, NamedFile]
    sender: Any

    def __call__(self, spec: RunSpec) -> RunSpec:
        """Return the spec with this node's paths; files that the node lacks are fetched first.

        Raises:
            ValueError: if the node's cache has no space left, or a file changed while it was sent.
        """
        if (node := ray.get_runtime_context().get_node_id()) == self.home:
            return spec
        paths = {named: self._local_path(named, node) for named in dict.fromkeys(self.files.values())}
        return moved(spec, {place: named.value(paths[named]) for place, named in self.files.items()})

    def _local_path(self, named: NamedFile, node: str) -> str:
        bundle: Bundle = ray.get(self.sender.bundle.remote(named))
        if _has(named, bundle):
            return named.path
        digest: str = ray.get(self.sender.digest.remote(named))
        folder = cached(
            cache_root() / "shipped" / digest,
            lambda partial: unpack(bundle, digest, self._pieces(named, bundle.size, node), partial),
        )
        return str(folder / bundle.name)

    def _pieces(self, named: NamedFile, size: int, node: str) -> Iterator[bytes]:
        requested: deque[Any] = deque()
        for start in range(0, size, PIECE):
            requested.append(self.sender.piece.remote(named, start, node))
            if len(requested) > _AHEAD:
                yield ray.get(requested.popleft())
        while requested:
            yield ray.get(requested.popleft())


def _has(named: NamedFile, bundle: Bundle) -> bool:
    """Whether this node has the same files at the same path."""
    try:
        return same_files(named.bundle(), bundle)
    except (OSError, ValueError):
        return False


@contextmanager
def file_transfer(spec: RunSpec) -> Iterator[FileTransfer | None]:
    """Offer a spec's files while workers may start; None if the spec names no files that nodes could lack."""
    files = named_files(spec)
    if not files:
        yield None
        return
    home = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(home, soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    sender: Any = ray.remote(_Sender).options(**options).remote()
    try:
        yield FileTransfer(home, files, sender)
    finally:
        ray.kill(sender)
