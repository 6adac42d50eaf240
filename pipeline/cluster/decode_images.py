"""Decode images on all cores and nodes by Ray Data, in the same order and to the same bytes as in one process."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.data
from ray.exceptions import RayTaskError

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

    Raises:
        ValueError: if a source of images raises one, for example because a package is missing.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    items = ray.data.from_items([{"record": r} for r in records], override_num_blocks=-(-len(records) // _BATCH))
    decoded = items.map_batches(partial(_decode_batch, preprocess=preprocess), batch_size=None, batch_format="numpy")
    try:
        for batch in decoded.iter_batches(batch_size=rows, batch_format="numpy"):
            yield Part.of([_decoded(batch, row) for row in range(len(batch["image"]))])
    except RayTaskError as error:
        if isinstance(cause := _cause(error), ValueError):
            raise ValueError(str(cause)) from error
        raise


def _decode_batch(batch: dict[str, Any], preprocess: Preprocess) -> dict[str, npt.NDArray[Any]]:
    images = list(map(decoder(preprocess), batch["record"]))
    return {
        "image": np.stack([image.pixels for image in images]),
        "notes": np.array([" ".join(image.notes) for image in images]),
        "problem": np.array([image.problem for image in images]),
    }


def _decoded(batch: Any, row: int) -> Decoded:
    notes, problem = str(batch["notes"][row]), str(batch["problem"][row])
    return Decoded(batch["image"][row], tuple(notes.split()), problem)


def _cause(error: BaseException) -> BaseException:
    """Return the exception that was raised in the task, without Ray's wrappers."""
    while isinstance(inner := getattr(error, "cause", None) or error.__cause__, BaseException):
        error = inner
    return error
