"""Decode images on all cores and nodes by Ray Data, in the same order and to the same bytes as in one process."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray.data
from ray.exceptions import RayTaskError

from tasks.vision.decoded import decode_image
from tasks.vision.images import ImageRecord
from tasks.vision.preprocess import Pixels, Preprocess

#: Images per Ray task: 10 MB of pixels at 224 x 224, about half a second of one core.
_BATCH = 64
#: Bytes of the object store if Ray is started for this: decoded batches wait there to be written in order.
OBJECT_STORE = 512 * 2**20


def decode_with_ray(records: Sequence[ImageRecord], preprocess: Preprocess, rows: int) -> Iterator[Pixels]:
    """Decode images on the connected Ray, a `tasks.vision.decoded.Decode`; all nodes must see the files.

    Raises:
        ValueError: if an image cannot be decoded; its name is given.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    items = ray.data.from_items([{"record": r} for r in records], override_num_blocks=-(-len(records) // _BATCH))
    decoded = items.map_batches(partial(_decode_batch, preprocess=preprocess), batch_size=None, batch_format="numpy")
    try:
        for batch in decoded.iter_batches(batch_size=rows, batch_format="numpy"):
            yield np.ascontiguousarray(batch["image"])
    except RayTaskError as error:
        if isinstance(cause := _cause(error), ValueError):
            raise ValueError(str(cause)) from error
        raise


def _decode_batch(batch: dict[str, Any], preprocess: Preprocess) -> dict[str, Pixels]:
    resize = preprocess.resizer()
    return {"image": np.stack([decode_image(record, resize) for record in batch["record"]])}


def _cause(error: BaseException) -> BaseException:
    """Return the exception that was raised in the task, without Ray's wrappers."""
    while isinstance(inner := getattr(error, "cause", None) or error.__cause__, BaseException):
        error = inner
    return error
