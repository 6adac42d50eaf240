"""Statistics of batch normalisation: buffers that are measured on data, not learned.

Weights that are merged change the inputs of every normalisation, so that no average of old statistics is right for them
(Jordan et al., 2023, "REPAIR"): they are measured again, by forward passes without labels.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_STATISTIC = re.compile(r"(?:.*\.)?running_(?:mean|var|std)")


def is_statistic(name: str) -> bool:
    """Return whether a tensor is a statistic of batches, by its name.

    Example:
        >>> is_statistic("layer1.0.bn1.running_var"), is_statistic("layer1.0.bn1.weight")
        (True, False)
    """
    return _STATISTIC.fullmatch(name) is not None


def has_statistics(module: nn.Module) -> bool:
    """Return whether a module normalises by stored statistics of batches."""
    return bool(_layers(module))


@torch.no_grad()
def estimate(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Measure all statistics again, in place: the mean of those of the batches, weighted by the batches' sizes.

    Meanwhile the layers normalise by each batch itself, so that those behind them see inputs as in training; everything
    else, such as dropout, stays as in evaluation. With batches of one size, the result is that of PyTorch's cumulative
    mean (`momentum=None`).

    Args:
        module: with the new weights, in evaluation.
        batches: inputs of the module, (B, ...), on its device.

    Returns:
        The number of inputs.

    Raises:
        ValueError: if a batch has one input, whose variance may not be defined, or there is none.
    """
    layers, count = _layers(module), 0
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.train(True)
    try:
        for batch in batches:
            if len(batch) < 2:
                raise ValueError(f"statistics of batches: need batches of two inputs or more, got {len(batch)}")
            count += len(batch)
            for layer in layers:
                layer.momentum = len(batch) / count
            module(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.train(False)
    if not count:
        raise ValueError("statistics of batches: need inputs, got none")
    return count


def batches_of(count: int, size: int) -> list[slice]:
    """Cut `count` inputs into batches of `size`; one input at the end joins the batch before it.

    Example:
        >>> batches_of(5, 2)
        [slice(0, 2, None), slice(2, 5, None)]
    """
    starts = [start for start in range(0, count, size) if count - start > 1 or start == 0]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True)]


def _layers(module: nn.Module) -> list[_NormBase]:
    return [m for m in module.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
