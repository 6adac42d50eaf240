"""Classification by frozen heads over image features, scored by top-1 accuracy.

A head is zero-shot, made by a text tower, or fitted to the base's features of training images.

Shape legend: B samples of a shard, K classes, D embedding dimension, C, H, W an image's channels, height and width.
"""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tasks.base import Backbone, NonFiniteOutput, ShardResult, TaskRequest
from tasks.files.cache import digest
from tasks.rows import check_rows
from tasks.stats import Stats
from tasks.vision.backbones import FitsHeads, NamesClasses, ReusesBatches, image_backbone
from tasks.vision.decoded import ImageSet, Progress, noted, prepare, prepare_train
from tasks.vision.heads import Head
from tasks.vision.images import ImageSource
from tasks.vision.preprocess import Preprocess
from tasks.vision.task_heads import fitted_head, prompted_head

logger = logging.getLogger(__name__)

#: Images (B, C, H, W), labels (B,), and what identifies the images.
_Batch = tuple[Tensor, Tensor, Hashable]

#: Images a forward pass. On the CPU 128 was the fastest of 32 to 512 for the embedded tower: its activations then stay
#: in a core's cache.
_CPU_BATCH, _ACCELERATOR_BATCH = 128, 256


@dataclass(frozen=True)
class Evaluation:
    """How a task is evaluated.

    Attributes:
        limits: number of samples of a split to use, None for all.
        batch_size: images a forward pass.
        groups: rows of the head of each class, if a class has several; its logit is the largest of theirs.
    """

    limits: Mapping[str, int | None]
    batch_size: int
    groups: Sequence[Sequence[int]] = ()


class ZeroShotClassification:
    """A task of images and a frozen head. Each split moves to the device when it is first scored, and stays there.

    Attributes:
        splits: the images of each split.
        head_KD: a row per class, or several rows for classes in groups.
        bias_K: added to the logits, one a row; None for 0.
    """

    metric = "accuracy"

    def __init__(
        self, name: str, splits: Mapping[str, ImageSet], head: Head, class_names: Sequence[str], how: Evaluation
    ) -> None:
        """Take the mapped splits ("val", "test") and the head on the CPU."""
        self.name = name
        self.class_names = tuple(class_names)
        self.splits = dict(splits)
        self.head_KD, self.bias_K = head.weights_KD, head.bias_K
        self._how = how
        self._groups_KM = _padded(how.groups)
        data = [f"{split}:{images.fingerprint}" for split, images in sorted(splits.items())]
        self.fingerprint = digest([self.metric, head.key, *self.class_names, *data, *map(str, how.groups)])[:16]

    def num_samples(self, split: str) -> int:
        """Return the number of samples of `split` to score, at most its limit; 0 if the task lacks the split."""
        available = len(self.splits[split]) if split in self.splits else 0
        limit = self._how.limits.get(split)
        return available if limit is None else min(limit, available)

    def keys(self, split: str) -> tuple[str, ...]:
        """Return the content hash of each sample's image, in the order of outcomes."""
        return self.splits[split].keys[: self.num_samples(split)]

    def evaluate(self, backbone: Backbone, split: str, start: int, stop: int) -> ShardResult:
        """Score samples start to stop - 1: an outcome is whether the largest logit is the label's.

        Raises:
            NonFiniteOutput: if a logit is NaN or infinite.
            ValueError: if the range is not within the split, or the backbone does not encode images.
        """
        if not 0 <= start < stop <= self.num_samples(split):
            raise ValueError(
                f"{self.name}: {split}[{start}:{stop}] is not within its {self.num_samples(split)} samples"
            )
        images = self._resident(split, image_backbone(backbone).device)
        starts = range(start, stop, self._how.batch_size)
        ends = [min(first + starts.step, stop) for first in starts]
        parts = (
            (images.slice(a, b), images.labels_N[a:b], (images.fingerprint, "range", a, b))
            for a, b in zip(starts, ends, strict=True)
        )
        return self._scored(backbone, parts, f"{split}[{start}:{stop}]")

    def together(self, split: str) -> int:
        """Return 1: see `tasks.base.ScoresRows`."""
        return 1

    def evaluate_rows(self, backbone: Backbone, split: str, rows: Sequence[int]) -> ShardResult:
        """Score some samples in this order, as `evaluate` does.

        Raises:
            NonFiniteOutput: if a logit is NaN or infinite.
            ValueError: if a row is not one of the split's samples, or the backbone does not encode images.
        """
        check_rows(self.name, split, rows, self.num_samples(split))
        images = self._resident(split, image_backbone(backbone).device)
        batches = (rows[i : i + self._how.batch_size] for i in range(0, len(rows), self._how.batch_size))
        return self._scored(backbone, (_chosen(images, batch) for batch in batches), f"{len(rows)} rows of {split}")

    def batch(self, split: str, rows_B: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return images of a split for training: uint8 (B, C, H, W) and labels (B,).

        Args:
            split: "val", "test", or "train" if the task was loaded with it.
            rows_B: int64 on the CPU, each at least 0 and less than `num_samples(split)`.
            device: of the result.
        """
        images = self.splits[split]
        size = images.chunk_size
        pixels = torch.stack([images.chunks[row // size][row % size] for row in rows_B.tolist()])
        return pixels.to(device), images.labels_N[rows_B.to(images.labels_N.device)].to(device)

    def logits(self, features_BD: Tensor) -> Tensor:
        """Apply the frozen head to L2-normalised features, on their device: logits (B, K)."""
        logits = features_BD @ self.head_KD.to(features_BD.device).T
        if self.bias_K is not None:
            logits = logits + self.bias_K.to(features_BD.device)
        if self._groups_KM is None:
            return logits
        return logits[:, self._groups_KM.to(features_BD.device)].amax(dim=-1)

    def _resident(self, split: str, device: torch.device) -> ImageSet:
        if self.splits[split].labels_N.device != device:
            self.splits[split] = self.splits[split].to(device, self.num_samples(split))
            self.head_KD = self.head_KD.to(device)
        return self.splits[split]

    @torch.inference_mode()
    def _scored(self, backbone: Backbone, parts: Iterable[_Batch], where: str) -> ShardResult:
        """Score batches of images; wait for the device once."""
        encoder, right, finite = image_backbone(backbone), [], []
        for images_BCHW, labels_B, identity in parts:
            if isinstance(encoder, ReusesBatches):
                features_BD = encoder.encode_batch(images_BCHW, identity)
            else:
                features_BD = encoder.encode(images_BCHW)
            logits_BK = self.logits(features_BD)
            right.append(logits_BK.argmax(dim=1) == labels_B)
            finite.append(torch.isfinite(logits_BK).all())
        outcomes = torch.cat(right).cpu().numpy()
        if not torch.stack(finite).all():
            raise NonFiniteOutput(f"{self.name}: {where}: non-finite logits (NaN or infinity)")
        total = float(outcomes.sum())
        return ShardResult(Stats(len(outcomes), total, total), outcomes)


def _chosen(images: ImageSet, rows: Sequence[int]) -> _Batch:
    rows_B = torch.tensor(rows)
    return images.take(rows_B), images.labels_N[rows_B.to(images.labels_N.device)], (images.fingerprint, "rows", *rows)


def _padded(groups: Sequence[Sequence[int]]) -> Tensor | None:
    """Pad the rows of each class with its first one, which leaves the largest logit unchanged."""
    if not groups:
        return None
    width = max(map(len, groups))
    return torch.tensor([[*rows, *[rows[0]] * (width - len(rows))] for rows in groups])


def zero_shot(
    request: TaskRequest, backbone: Backbone, source: ImageSource, progress: Progress | None = None
) -> ZeroShotClassification:
    """Make the task of an image source: decode and encode what the cache lacks, then map it into memory.

    The head is zero-shot if the backbone has a text tower, or else fitted to the base's features of training images.

    Raises:
        ValueError: if a limit, batch size or template is invalid, or the images cannot be prepared.

    Example:
        The factory of a plug-in, where `Stripes` is an `ImageSource`:

        >>> from tasks.registry import TASKS
        >>> def load(request, backbone, progress):
        ...     return zero_shot(request, backbone, Stripes(), progress)
        >>> TASKS.register("docs-images", load)
    """
    encoder = image_backbone(backbone)
    if len(source.class_names) < 2:
        raise ValueError(
            f"tasks.{request.name}: {source.name}: has only the class {', '.join(source.class_names)}, so every answer "
            "would be right: use two or more; for a folder of images, name the one whose subfolders are the classes"
        )
    preprocess = image_preprocess(request, encoder.preprocess)
    if isinstance(encoder, FitsHeads):
        found = fitted_head(request, encoder, source, preprocess, progress)
    else:
        assert isinstance(encoder, NamesClasses)
        found = prompted_head(request, encoder, source)
    how = Evaluation(_limits(request), image_batch(request, encoder.device.type), found.groups)
    splits = prepare(source, preprocess, progress)
    if request.train:
        splits = {**splits, "train": prepare_train(source, preprocess, progress)}
    for line in (*noted(splits.values(), preprocess), *found.warnings):
        logger.warning("tasks.%s: %s: %s", request.name, source.name, line)
    return ZeroShotClassification(request.name, splits, found.head, source.class_names, how)


def image_batch(request: TaskRequest, device_type: str) -> int:
    """Return the number of images of a forward pass.

    Raises:
        ValueError: if the option batch_size is not a positive whole number.
    """
    default = _CPU_BATCH if device_type == "cpu" else _ACCELERATOR_BATCH
    return _positive(f"tasks.{request.name}.options.batch_size", request.options.get("batch_size", default))


def image_preprocess(request: TaskRequest, preprocess: Preprocess) -> Preprocess:
    """Return a backbone's preprocessing with the task's option exif_orientation.

    Raises:
        ValueError: if the option is neither true nor false.
    """
    if not isinstance(turn := request.options.get("exif_orientation", False), bool):
        raise ValueError(f"tasks.{request.name}.options.exif_orientation: must be true or false, got {turn!r}")
    return replace(preprocess, exif_orientation=True) if turn else preprocess


def _limits(request: TaskRequest) -> Mapping[str, int | None]:
    for split, limit in request.limits.items():
        if limit is not None:
            _positive(f"tasks.{request.name}.limits.{split}", limit)
    return dict(request.limits)


def _positive(where: str, value: object) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{where}: must be a whole number, at least 1, got {value!r}")
    return value
