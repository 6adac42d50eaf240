"""Decode images on all cores and nodes by tasks of Ray, in the same order and to the same bytes as in one process."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from math import gcd
from typing import Any

import ray
from ray.exceptions import RayTaskError

from pipeline.cluster.nodes import alive_nodes
from tasks.vision.decoded import decoder
from tasks.vision.decoding import Decoded, Part
from tasks.vision.images import ImageRecord
from tasks.vision.preprocess import Preprocess

#: Images per Ray task: 10 MB of pixels at 224 x 224, about half a second of one core.
_BATCH = 64
#: Bytes of the object store if Ray is started for this: decoded batches wait there to be written in order.
OBJECT_STORE = 512 * 2**20


def decode_with_ray(records: Sequence[ImageRecord], preprocess: Preprocess, rows: int) -> Iterator[Part]:
    """Decode images on the connected Ray, a `tasks.vision.decoded.Decode`; all nodes must see the files.

    Ray Data would do this too, but needs pandas.

    Raises:
        ValueError: if a source of images raises one, for example because a package is missing.
    """
    size = gcd(_BATCH, rows)  # whole batches fill a part
    decoded = _in_order((records[i : i + size] for i in range(0, len(records), size)), preprocess)
    try:
        while batches := list(islice(decoded, rows // size)):
            yield Part.of([image for batch in batches for image in batch])
    except RayTaskError as error:
        if isinstance(error.cause, ValueError):
            raise ValueError(str(error.cause)) from error
        raise


def _in_order(batches: Iterator[Sequence[ImageRecord]], preprocess: Preprocess) -> Iterator[list[Decoded]]:
    """Yield each batch decoded; two tasks for each core of the cluster are decoded ahead, so that memory is bounded."""
    remote: Any = ray.remote(_decode).options(scheduling_strategy="SPREAD")
    waiting = deque[Any]()
    for batch in batches:
        waiting.append(remote.remote(batch, preprocess))
        if len(waiting) > 2 * sum(node.cpus for node in alive_nodes()):
            yield ray.get(waiting.popleft())
    while waiting:
        yield ray.get(waiting.popleft())


def _decode(records: Sequence[ImageRecord], preprocess: Preprocess) -> list[Decoded]:
    return list(map(decoder(preprocess), records))
