"""Compute what Fisher merging and RegMean need of each expert, from validation images of its own task.

Shape legend: B images, K classes, N rows (images times tokens), D inputs of a layer.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.learning.inputs import SPLIT, ImageEncoder, LabelledImages, leaves
from tasks.errors import NonFiniteOutput

#: Called as `progress(done, total)`, in images.
Progress: TypeAlias = Callable[[int, int], None]
#: (weights in the module, task, images, progress) -> tensors by parameter name.
Statistic: TypeAlias = Callable[[ImageEncoder, LabelledImages, int, Progress], dict[str, Tensor]]
#: Seed of the labels that the diagonal Fisher draws.
_SEED = 0
_BATCH = 64


def silent(done: int, total: int) -> None:
    """Report no progress."""


@torch.enable_grad()
def fisher(
    backbone: ImageEncoder, task: LabelledImages, samples: int, progress: Progress = silent
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of the module's weights (Matena & Raffel, 2022, equation 3).

    It is the mean over images of the squared gradient of log p(y | x), with one y for each image drawn from the model's
    own p(y | x) with a fixed seed: the expectation over all K classes would cost K backward passes an image. It takes
    one image at a time, so that only the sum and one gradient, each as large as the model, are in memory.

    Args:
        backbone: holds the expert's weights.
        task: whose first `samples` validation images are used, or all if there are fewer.
        samples: images, at least 1.
        progress: called after every image.

    Returns:
        Parameter name -> float32 of the parameter's shape.

    Raises:
        NonFiniteOutput: if a logit is NaN or infinite.
    """
    count, weights = min(samples, task.num_samples(SPLIT)), leaves(backbone)
    sums = {name: torch.zeros_like(w, dtype=torch.float32, requires_grad=False) for name, w in weights.items()}
    generator = torch.Generator().manual_seed(_SEED)
    for row in range(count):
        images_1CHW, _ = task.batch(SPLIT, torch.tensor([row]), backbone.device)
        log_p_K = task.logits(backbone.embed(images_1CHW, weights)).log_softmax(dim=-1)[0]
        if not bool(log_p_K.isfinite().all()):
            raise NonFiniteOutput(f"{task.name}: {SPLIT}[{row}]: non-finite logits (NaN or infinity)")
        label = torch.multinomial(log_p_K.detach().exp().cpu(), 1, generator=generator)
        gradients = torch.autograd.grad(log_p_K[int(label)], list(weights.values()), materialize_grads=True)
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total.addcmul_(gradient.float(), gradient.float())
        progress(row + 1, count)
    return {name: total.div_(count) for name, total in sums.items()}


@torch.no_grad()
def gram(
    backbone: ImageEncoder,
    task: LabelledImages,
    samples: int,
    progress: Progress = silent,
    within: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Return X^T X / N of the inputs X (N, D) of every linear layer, for the module's weights (Jin et al., 2023).

    Linear layers are `nn.Linear` and both projections of `nn.MultiheadAttention`: the joint one of query, key and value
    if these are one tensor, and that of its output. Dividing by the rows gives experts with fewer images equal
    weight. Peak memory is the result: D^2 numbers a layer.

    Args:
        backbone: holds the expert's weights.
        task: whose first `samples` validation images are used, or all if there are fewer.
        samples: images, at least 1.
        progress: called after every batch.
        within: weights that get an entry, of layers that follow each other; None for all. A forward pass ends at the
            first linear layer after them.

    Returns:
        Name of a linear layer's weight -> float32 (D, D); no other parameter has an entry.
    """
    count, sums = min(samples, task.num_samples(SPLIT)), _Products(within)
    with ExitStack() as hooks:
        for name, module in backbone.module.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                hooks.enter_context(module.register_forward_pre_hook(sums.attention(name), with_kwargs=True))
            elif isinstance(module, nn.Linear):
                hooks.enter_context(module.register_forward_pre_hook(sums.linear(name)))
        for rows_B in torch.split(torch.arange(count), _BATCH):
            sums.started = False
            with suppress(_Enough):
                backbone.embed(task.batch(SPLIT, rows_B, backbone.device)[0])
            progress(int(rows_B[-1]) + 1, count)
    return sums.means()


class _Enough(Exception):
    """Raised in a forward pass when what follows is not needed."""


class _Products:
    """Sums of X^T X by the weight's name, filled by hooks; `started` once a forward pass has given one."""

    def __init__(self, within: Collection[str] | None) -> None:
        self._within, self.started = within, False
        self._sums: dict[str, Tensor] = {}
        self._rows: Counter[str] = Counter()

    def means(self) -> dict[str, Tensor]:
        return {name: total / self._rows[name] for name, total in self._sums.items()}

    def linear(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if self._is_in(f"{name}.weight"):
                self._add(f"{name}.weight", inputs[0])

        return hook

    def attention(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            assert isinstance(module, nn.MultiheadAttention)
            if not self._is_in(f"{name}.out_proj.weight"):
                return
            given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            if module.in_proj_weight is not None and given["query"] is given["key"] is given["value"]:
                self._add(f"{name}.in_proj_weight", given["query"])
            self._add(f"{name}.out_proj.weight", _heads(module, args, kwargs))

        return hook

    def _is_in(self, name: str) -> bool:
        if self._within is None or name in self._within:
            return True
        if self.started:
            raise _Enough
        return False

    def _add(self, name: str, inputs: Tensor) -> None:
        self.started = True
        rows_ND = inputs.flatten(0, -2).float()
        product_DD = rows_ND.T @ rows_ND
        self._sums[name] = self._sums[name].add_(product_DD) if name in self._sums else product_DD
        self._rows[name] += len(rows_ND)


class _Bare(nn.Module):
    """A module's forward pass without its hooks."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.forward(*args, **kwargs)


def _heads(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """What the output projection is given, which no hook sees: the module's output with an identity in its place."""
    weight_DD, bias_D = module.out_proj.weight, module.out_proj.bias
    identity = {"inner.out_proj.weight": torch.eye(len(weight_DD), device=weight_DD.device, dtype=weight_DD.dtype)}
    if bias_D is not None:
        identity["inner.out_proj.bias"] = torch.zeros_like(bias_D)
    heads: Tensor = functional_call(_Bare(module), identity, args, dict(kwargs))[0]
    return heads


STATISTICS: dict[str, Statistic] = {"fisher": fisher, "gram": gram}
