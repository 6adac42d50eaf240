"""Merging coefficients learned by gradient descent: AdaMerging and aTLAS.

theta = theta0 + sum over experts t of c[t, g] * tau_t, g being the group that a parameter is in. It is linear in c, so

    dL / dc[t, g] = sum over the parameters of g of <dL / dtheta, tau_t>

and the graph reaches the weights only, never the task vectors: beside what a resident model holds anyway, one gradient
as large as the model and the activations of one batch are in memory, whatever the number of experts.

Shape legend: B images, K classes, T experts, G groups.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam, AdamW, Optimizer

from pipeline.learning.inputs import SPLIT, ImageEncoder, LabelledImages, leaves, overwrite
from pipeline.merging.methods.base import Experts
from tasks.base import NonFiniteOutput


def entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Mean entropy of the predictions; the labels are not looked at."""
    log_p_BK = logits_BK.log_softmax(dim=-1)
    return -(log_p_BK.exp() * log_p_BK).sum(dim=-1).mean()


@dataclass(frozen=True)
class Rule:
    """What a method minimises, and how.

    Attributes:
        loss: (logits (B, K), labels (B,)) -> a number; summed over tasks.
        optimizer: (coefficients, learning rate) -> what updates them.
        low: what coefficients are clamped to from below after every step.
        high: the same from above.
        max_norm: of the gradient of all coefficients together; a longer one is shortened to it.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[Tensor, float], Optimizer]
    low: float = -math.inf
    high: float = math.inf
    max_norm: float = math.inf


#: Where the papers leave a choice open, as in the code that their authors published.
RULES = {
    # Yang et al. (2024), section 3.2; coefficients in [0, 1].
    "adamerging": Rule(entropy, lambda c, lr: Adam([c], lr=lr, betas=(0.9, 0.999)), low=0.0, high=1.0),
    # Zhang et al. (2024), section 3; weight decay 0.1, gradients of norm 1 at most.
    "atlas": Rule(F.cross_entropy, lambda c, lr: AdamW([c], lr=lr, weight_decay=0.1), max_norm=1.0),
}


@dataclass(frozen=True)
class LearningSettings:
    """The parameters of a method that learns.

    Attributes:
        steps: updates of the coefficients.
        lr: learning rate.
        batch_size: images of each task a step.
        initial: every coefficient before the first step.
        seed: of the order of images.
        granularity: what shares a coefficient: "task", all parameters of an expert; "layer", what is outside the
            blocks, and each block; "tensor", each parameter by itself.
    """

    steps: int
    lr: float
    batch_size: int
    initial: float
    seed: int
    granularity: str = "tensor"


@torch.enable_grad()
def learn(
    backbone: ImageEncoder, tasks: Sequence[LabelledImages], experts: Experts, rule: Rule, settings: LearningSettings
) -> list[dict[str, float]]:
    """Learn the coefficients of `experts` on the validation images of `tasks`.

    Each step takes a batch of every task; all images of a task are taken once before any is taken again. On a CPU the
    result repeats bit for bit. The module is left with other weights than it had.

    Args:
        backbone: whose module is overwritten.
        tasks: what the loss is summed over.
        experts: theta0 and the task vectors, each of which gets coefficients.
        rule: what is minimised.
        settings: for how long, and how finely.

    Returns:
        For each expert: parameter name -> its coefficient.

    Raises:
        NonFiniteOutput: a gradient is NaN or infinite.
    """
    assert experts.base is not None
    places = _groups(backbone, settings.granularity)
    coefficients_TG = torch.full((len(experts.deltas), max(places.values()) + 1), float(settings.initial))
    optimizer = rule.optimizer(coefficients_TG, settings.lr)
    sizes = [task.num_samples(SPLIT) for task in tasks]
    batches = [_batches(size, settings.batch_size, settings.seed + i) for i, size in enumerate(sizes)]
    weights = leaves(backbone)
    for step in range(settings.steps):
        overwrite(backbone, experts.base, list(zip(experts.deltas, _by_name(coefficients_TG, places), strict=True)))
        for task, rows in zip(tasks, batches, strict=True):
            images_BCHW, labels_B = task.batch(SPLIT, next(rows), backbone.device)
            loss = rule.loss(task.logits(backbone.embed(images_BCHW, weights)), labels_B)
            torch.autograd.backward(loss)
        coefficients_TG.grad = _through(weights, experts, places, coefficients_TG.shape)
        if not bool(coefficients_TG.grad.isfinite().all()):
            raise NonFiniteOutput(f"learned coefficients: NaN or infinite gradient at step {step}; try a smaller lr")
        torch.nn.utils.clip_grad_norm_([coefficients_TG], rule.max_norm)
        optimizer.step()
        coefficients_TG.clamp_(rule.low, rule.high)
    return _by_name(coefficients_TG, places)


def _groups(backbone: ImageEncoder, granularity: str) -> dict[str, int]:
    """Parameter name -> number of its group, from 0: see `LearningSettings.granularity`."""
    names, blocks = [n for n, _ in backbone.module.named_parameters()], backbone.layer_map.blocks
    if granularity == "tensor":
        return {name: i for i, name in enumerate(names)}
    return {name: blocks[name] + 1 if granularity == "layer" and name in blocks else 0 for name in names}


def _by_name(coefficients_TG: Tensor, places: dict[str, int]) -> list[dict[str, float]]:
    """The coefficients of each expert by parameter name."""
    return [{name: row[place] for name, place in places.items()} for row in coefficients_TG.tolist()]


def _batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Row numbers (B,) without end: epoch after epoch, each in an order of its own; an epoch's last may be shorter."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.split(torch.randperm(count, generator=generator), size)


@torch.no_grad()
def _through(weights: dict[str, Tensor], experts: Experts, places: dict[str, int], shape: torch.Size) -> Tensor:
    """The gradient (T, G) of the coefficients, on the CPU; takes the gradients off the weights."""
    gradient_TG = torch.zeros(shape, device=next(iter(weights.values())).device)
    for name, weight in weights.items():
        if weight.grad is None:
            continue
        flat = weight.grad.flatten().float()
        for t, delta in enumerate(experts.deltas):
            gradient_TG[t, places[name]] += torch.dot(flat, delta[name].flatten())
        weight.grad = None
    return gradient_TG.cpu()
