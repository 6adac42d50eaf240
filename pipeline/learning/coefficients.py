"""Learn merging coefficients by gradient descent: AdaMerging and aTLAS.

theta = theta0 + sum over experts t of c[t, g] * tau_t, with g the group of a parameter. It is linear in c, so

    dL / dc[t, g] = sum over the parameters of g of <dL / dtheta, tau_t>

and the graph reaches only the weights, never the task vectors: besides the resident model, one gradient as large as the
model and the activations of one batch are in memory, whatever the number of experts.

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
from tasks.errors import NonFiniteOutput


def entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Return the mean entropy of the predictions; labels are not used."""
    log_p_BK = logits_BK.log_softmax(dim=-1)
    return -(log_p_BK.exp() * log_p_BK).sum(dim=-1).mean()


@dataclass(frozen=True)
class Rule:
    """The objective of a method, and how it is minimised.

    Attributes:
        loss: (logits (B, K), labels (B,)) -> a number; summed over tasks.
        optimizer: (coefficients, learning rate) -> optimizer.
        low: least coefficient; they are clamped after every step.
        high: greatest coefficient.
        max_norm: greatest norm of the gradient of all coefficients together; it is clipped to it.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[Tensor, float], Optimizer]
    low: float = -math.inf
    high: float = math.inf
    max_norm: float = math.inf


#: Choices that the papers leave open are those of the authors' published code.
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
        granularity: parameters that share a coefficient: "task", all of an expert; "layer", those outside the blocks,
            and those of each block; "tensor", none.
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

    Each step takes a batch of every task; all images of a task are used once before any is used again. On a CPU the
    result is bitwise repeatable. The module's weights are overwritten.

    Args:
        backbone: whose module is overwritten.
        tasks: that the loss is summed over.
        experts: theta0 and the task vectors, each of which gets coefficients.
        rule: of the method.
        settings: parameters of the method.

    Returns:
        For each expert: parameter name -> its coefficient.

    Raises:
        NonFiniteOutput: if a gradient is NaN or infinite.
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
    """Map parameter names to the numbers of their groups, from 0: see `LearningSettings.granularity`."""
    names, blocks = [n for n, _ in backbone.module.named_parameters()], backbone.layer_map.blocks
    if granularity == "tensor":
        return {name: i for i, name in enumerate(names)}
    return {name: blocks[name] + 1 if granularity == "layer" and name in blocks else 0 for name in names}


def _by_name(coefficients_TG: Tensor, places: dict[str, int]) -> list[dict[str, float]]:
    """Return the coefficients of each expert by parameter name."""
    return [{name: row[place] for name, place in places.items()} for row in coefficients_TG.tolist()]


def _batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield row numbers (B,) without end, shuffled in each epoch; an epoch's last batch may be shorter."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.split(torch.randperm(count, generator=generator), size)


@torch.no_grad()
def _through(weights: dict[str, Tensor], experts: Experts, places: dict[str, int], shape: torch.Size) -> Tensor:
    """Return the gradient (T, G) of the coefficients on the CPU, and clear the gradients of the weights."""
    gradient_TG = torch.zeros(shape, device=next(iter(weights.values())).device)
    for name, weight in weights.items():
        if weight.grad is None:
            continue
        flat = weight.grad.flatten().float()
        for t, delta in enumerate(experts.deltas):
            gradient_TG[t, places[name]] += torch.dot(flat, delta[name].flatten())
        weight.grad = None
    return gradient_TG.cpu()
