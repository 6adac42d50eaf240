"""Frozen linear heads that are fitted to the base's features of training images, for towers without a text tower.

All choices are made on the training images, by leaving each of them out of its own fit: neither validation nor test
images are read.

Shape legend: N training images, D embedding dimension, K classes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.registry import near
from tasks.vision.heads import HeadKind

#: Weight and bias of a head: (K, D) and (K,).
_Linear = tuple[Tensor, Tensor]
#: Penalties of ridge regression that are tried, in units of the features' mean variance times N.
_PENALTIES = tuple(10.0**power for power in range(-5, 3))
#: Of the cross-entropy that chooses the factor: where the base makes no mistake, an infinite factor would be best
#: without it, and fine-tuning would have no gradient.
_SMOOTHING = 0.1
#: Factors of the logits that are tried.
_FACTORS = tuple(2.0 ** (half / 2) for half in range(21))


def head_kind(where: str, value: object) -> HeadKind:
    """Return the kind of head that an option names.

    Raises:
        ValueError: if there is none of this name; `where` names the option.
    """
    for kind in get_args(HeadKind):
        if value == kind:
            return kind  # type: ignore[no-any-return]
    raise ValueError(f"{where}: unknown classifier {value!r}; {near(str(value), get_args(HeadKind))}")


def fit_head(features_ND: Tensor, labels_N: Tensor, classes: int, kind: HeadKind) -> _Linear:
    """Fit a linear head, in float64; logits are its values times the factor with the least smoothed cross-entropy.

    Args:
        features_ND: L2-normalised.
        labels_N: int64, 0 to `classes` - 1; every class has an image.
        classes: K.
        kind: `ridge`: regression on one-hot labels with a bias, whose penalty has the least squared error on images
            that are left out; `class_means`: the cosine to the mean of a class's features (Mensink et al. 2013).

    Returns:
        Weight (K, D) and bias (K,), float32.

    Raises:
        ValueError: if features are not finite, or those of all images are the same.
    """
    if not bool(features_ND.isfinite().all()):
        raise ValueError("the base's features of training images are NaN or infinite: is it the right checkpoint?")
    if bool((features_ND == features_ND[0]).all()):
        raise ValueError(
            f"all {len(features_ND)} training images have the same features, so no head tells classes apart: are they "
            "copies of one image?"
        )
    weight_KD, bias_K, held_out_NK = _FITS[kind](features_ND.double(), F.one_hot(labels_N, classes).double())
    factor = min(_FACTORS, key=lambda factor: _loss(factor * held_out_NK, labels_N))
    return (factor * weight_KD).float().contiguous(), (factor * bias_K).float()


def _loss(logits_NK: Tensor, labels_N: Tensor) -> float:
    return float(F.cross_entropy(logits_NK, labels_N, label_smoothing=_SMOOTHING))


def _ridge(x_ND: Tensor, y_NK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight, bias and the logits of each image by the fit without it (PRESS, Allen 1974).

    With centred features X = P V', the fit without image i predicts (f_i - h_i y_i) / (1 - h_i), where f are the whole
    fit's predictions and h is the diagonal of the hat matrix.
    """
    mean_D, mean_K = x_ND.mean(dim=0), y_NK.mean(dim=0)
    centred_ND = x_ND - mean_D
    values_D, v_DD = torch.linalg.eigh(centred_ND.T @ centred_ND)
    p_ND, target_DK = centred_ND @ v_DD, v_DD.T @ (centred_ND.T @ (y_NK - mean_K))

    def held_out(penalty: float) -> Tensor:
        inverse_D = 1 / (values_D.clamp(min=0) + penalty)
        hat_N1 = (1 / len(x_ND) + (p_ND.square() * inverse_D).sum(dim=1, keepdim=True)).clamp(max=1 - 1e-6)
        fitted_NK = mean_K + p_ND @ (inverse_D[:, None] * target_DK)
        predicted_NK: Tensor = (fitted_NK - hat_N1 * y_NK) / (1 - hat_N1)
        return predicted_NK

    unit = float(values_D.clamp(min=0).mean())
    penalties = [unit * share for share in _PENALTIES]
    penalty = min(penalties, key=lambda penalty: float((held_out(penalty) - y_NK).square().mean()))
    weight_DK = v_DD @ (target_DK / (values_D.clamp(min=0) + penalty)[:, None])
    return weight_DK.T, mean_K - mean_D @ weight_DK, held_out(penalty)


def _class_means(x_ND: Tensor, y_NK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight, bias and the cosines of each image, of its own class without it if the class has another."""
    sums_KD = y_NK.T @ x_ND
    labels_N, rows_N = y_NK.argmax(dim=1), torch.arange(len(x_ND))
    others_ND = sums_KD[labels_N] - x_ND
    alone_N1 = (y_NK.sum(dim=0)[labels_N] == 1)[:, None]
    own_ND = F.normalize(torch.where(alone_N1, x_ND, others_ND), dim=-1)
    weight_KD = F.normalize(sums_KD, dim=-1)
    held_out_NK: Tensor = x_ND @ weight_KD.T
    held_out_NK[rows_N, labels_N] = (x_ND * own_ND).sum(dim=1)
    return weight_KD, torch.zeros_like(weight_KD[:, 0]), held_out_NK


_FITS: Mapping[HeadKind, Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    "ridge": _ridge,
    "class_means": _class_means,
}


def check_classes(labels_N: Iterable[int], class_names: list[str]) -> None:
    """Require an image of each class.

    Raises:
        ValueError: if a class has none.
    """
    seen = set(labels_N)
    if without := [name for label, name in enumerate(class_names) if label not in seen]:
        raise ValueError(
            f"{len(without)} classes have no training image ({', '.join(map(repr, without[:3]))}), and a head needs at "
            "least one of each: add some, or leave the classes out"
        )
