"""The example of the first guide to plug-ins, with the module names of that time."""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.base import Backbone, Task, TaskRequest
from tasks.classification import zero_shot
from tasks.data import Progress
from tasks.images import ImageRecord
from tasks.registry import TASKS


class Stripes:
    """Noisy stripes: an image source (`tasks.images.ImageSource`)."""

    name = "stripes"
    class_names = ("vertical stripes", "horizontal stripes")
    templates = ("a picture of {}", "{}")
    fingerprint = "stripes, version 1"  # change it whenever `records` changes: it is the key of the decoded cache

    def records(self) -> Mapping[str, Sequence[ImageRecord]]:
        """Draw 50 images for val and 100 for test."""
        rng = np.random.default_rng(0)
        return {"val": self._draw(rng, "val", 50), "test": self._draw(rng, "test", 100)}

    def _draw(self, rng: np.random.Generator, split: str, count: int) -> list[ImageRecord]:
        records = []
        for i in range(count):
            pixels = rng.integers(0, 128, (32, 32, 3), dtype=np.uint8)
            stripes = (pixels, pixels.transpose(1, 0, 2))[i % 2]  # a view: writing to it writes to pixels
            stripes[:, ::4] += 127
            records.append(ImageRecord.from_array(f"{split}:{i}", i % 2, pixels))
        return records


def load(request: TaskRequest, backbone: Backbone, progress: Progress | None) -> Task:
    """Make the task: decoding, text head, splits on the device and scoring are the library's."""
    return zero_shot(request, backbone, Stripes(), progress)


TASKS.register("stripes-old-imports", load)
