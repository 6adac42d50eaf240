"""The authors' validation split: training images chosen by index like torch's random_split with seed 0."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

#: Share of the training images, and at most this many.
_FRACTION, _MOST = 0.1, 5000

Indices = npt.NDArray[np.int64]


def cut_validation(count: int) -> tuple[Indices, Indices]:
    """Return the indices of train and of val among `count` training images in the data set's order.

    Val is the last tenth of a permutation with seed 0, at most 5,000: `split_train_into_train_val` of
    nik-dim/tall_masks (src/datasets/registry.py), which LiNeS uses. `torch.utils.data.random_split` draws the
    permutation by `randperm`.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    val = min(int(count * _FRACTION), _MOST)
    return order[: count - val], order[count - val :]


def held_out_by_file(path: Path, count: int) -> tuple[Indices, Indices]:
    """Return the indices of train and of val by model-soups' `imagenet_98_idxs.npy`: 1 for held-out images.

    Raises:
        ValueError: if the file is missing or not an array with one 0 or 1 for each of the `count` training images.
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
