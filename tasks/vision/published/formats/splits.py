"""The authors' validation split: cut out of the training images by index, as torch's random_split does with seed 0."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

#: Of the training images, and at most this many.
_FRACTION, _MOST = 0.1, 5000

Indices = npt.NDArray[np.int64]


def cut_validation(count: int) -> tuple[Indices, Indices]:
    """Indices of train and of val, out of `count` training images in the data set's own order.

    The last tenth of a permutation with seed 0, at most 5,000: `split_train_into_train_val` of the authors' code
    (nik-dim/tall_masks, src/datasets/registry.py), from which LiNeS takes it. `torch.utils.data.random_split` draws
    that permutation by `randperm`.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    val = min(int(count * _FRACTION), _MOST)
    return order[: count - val], order[count - val :]


def held_out_by_file(path: Path, count: int) -> tuple[Indices, Indices]:
    """Indices of train and of val by a file of model-soups, `imagenet_98_idxs.npy`: 1 where an image is held out.

    Raises:
        ValueError: no such file, no array of numbers, or not one number for each of the `count` training images.
    """
    try:
        marks = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a NumPy array of marks: {error}") from error
    if marks.shape != (count,) or not set(np.unique(marks)) <= {0, 1}:
        raise ValueError(
            f"{path}: must hold one 0 or 1 for each of the {count} training images, got shape {marks.shape}: is it "
            "imagenet_98_idxs.npy of model-soups, and is train complete?"
        )
    return np.flatnonzero(marks == 0), np.flatnonzero(marks == 1)
