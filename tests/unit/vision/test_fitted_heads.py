"""Proves that a fitted head is ridge regression or class means, chosen by leaving training images out one by one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.vision import fitted_heads
from tasks.vision.fitted_heads import check_classes, fit_head, head_kind
from tasks.vision.heads import HeadKind

N, D, K = 24, 5, 3


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    """Return features of three overlapping classes and their labels; the last class has one image."""
    torch.manual_seed(0)
    labels_N = torch.tensor([0, 1] * 11 + [1, 2])
    x_ND = torch.randn(N, D) + 1.5 * F.one_hot(labels_N, D)
    return F.normalize(x_ND, dim=-1), labels_N


def ridge(x_ND: Tensor, y_NK: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Solve the normal equations with a bias that is not penalised."""
    whole_NE = torch.cat([x_ND, torch.ones(len(x_ND), 1, dtype=x_ND.dtype)], dim=1)
    shrink_EE = penalty * torch.eye(D + 1, dtype=x_ND.dtype)
    shrink_EE[D, D] = 0
    found_EK = torch.linalg.solve(whole_NE.T @ whole_NE + shrink_EE, whole_NE.T @ y_NK)
    return found_EK[:D].T, found_EK[D]


def test_ridge_has_the_penalty_that_predicts_left_out_images_best(data: tuple[Tensor, Tensor]) -> None:
    x_ND, labels_N = data[0].double(), data[1]
    y_NK = F.one_hot(labels_N, K).double()
    unit = float(torch.linalg.eigvalsh((x_ND - x_ND.mean(0)).T @ (x_ND - x_ND.mean(0))).mean())

    def left_out(penalty: float) -> Tensor:
        rows = []
        for i in range(N):
            others = [j for j in range(N) if j != i]
            weight_KD, bias_K = ridge(x_ND[others], y_NK[others], penalty)
            rows.append(weight_KD @ x_ND[i] + bias_K)
        return torch.stack(rows)

    penalties = [unit * 10.0**power for power in range(-5, 3)]
    best = min(penalties, key=lambda penalty: float((left_out(penalty) - y_NK).square().mean()))
    assert best not in (penalties[0], penalties[-1])
    factors = [2.0 ** (half / 2) for half in range(21)]
    factor = min(factors, key=lambda f: float(F.cross_entropy(f * left_out(best), labels_N, label_smoothing=0.1)))
    weight_KD, bias_K = ridge(x_ND, y_NK, best)
    found_KD, found_K = fit_head(data[0], labels_N, K, "ridge")
    torch.testing.assert_close(found_KD, (factor * weight_KD).float())
    torch.testing.assert_close(found_K, (factor * bias_K).float())


def test_class_means_are_cosines_and_their_factor_is_that_of_left_out_images(data: tuple[Tensor, Tensor]) -> None:
    x_ND, labels_N = data[0].double(), data[1]
    means_KD = F.normalize(torch.stack([x_ND[labels_N == k].mean(dim=0) for k in range(K)]), dim=-1)
    left_out = x_ND @ means_KD.T
    for i, label in enumerate(labels_N.tolist()):
        others = [j for j in range(N) if labels_N[j] == label and j != i] or [i]  # a class of one keeps its image
        left_out[i, label] = x_ND[i] @ F.normalize(x_ND[others].mean(dim=0), dim=0)
    losses = {f: F.cross_entropy(f * left_out, labels_N, label_smoothing=0.1) for f in fitted_heads._FACTORS}
    factor = min(losses, key=lambda f: float(losses[f]))
    assert fitted_heads._FACTORS[0] < factor < fitted_heads._FACTORS[-1]
    weight_KD, bias_K = fit_head(data[0], labels_N, K, "class_means")
    torch.testing.assert_close(weight_KD, (factor * means_KD).float())
    assert not bias_K.any()


@pytest.mark.parametrize("kind", ["ridge", "class_means"])
def test_classes_that_the_base_separates_leave_a_gradient_for_fine_tuning(kind: HeadKind) -> None:
    labels_N = torch.tensor([0, 1, 2] * 6)
    x_ND = F.normalize(F.one_hot(labels_N, D) + 0.01 * torch.randn(18, D), dim=-1)
    weight_KD, bias_K = fit_head(x_ND, labels_N, K, kind)
    right = F.softmax(x_ND @ weight_KD.T + bias_K, dim=1)[range(18), labels_N]
    assert right.min() > 0.8 and right.max() < 0.98


def test_unknown_kinds_and_classes_without_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"options\.classifier: unknown classifier 'rigde'; did you mean 'ridge'\?"):
        head_kind("options.classifier", "rigde")
    with pytest.raises(ValueError, match=r"1 classes have no training image \('b'\)"):
        check_classes([0, 2, 2], ["a", "b", "c"])
