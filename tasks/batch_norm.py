"""Statistics of batch normalisation: buffers that are measured on data, not learned.

Weights that are merged change the inputs of every normalisation, so that no average of old statistics is right for them
(Jordan et al., 2023, "REPAIR"): they are measured again, by forward passes without labels.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_STATISTIC = re.compile(r"(?:.*\.)?running_(?:mean|var|std)")
_COUNTER = "num_batches_tracked"


def is_statistic(name: str) -> bool:
    """Return whether a tensor is a statistic of batches, by its name.

    Example:
        >>> is_statistic("layer1.0.bn1.running_var"), is_statistic("layer1.0.bn1.weight")
        (True, False)
    """
    return _STATISTIC.fullmatch(name) is not None


def is_counter(name: str) -> bool:
    """Return whether a tensor is a counter of batches, by its name; it changes no output."""
    return name.rpartition(".")[2] == _COUNTER


def statistics(module: nn.Module) -> dict[str, Tensor]:
    """Return the statistics of a module by name: the buffers themselves."""
    return {name: buffer for name, buffer in module.named_buffers() if is_statistic(name)}


def without_buffers(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Leave out the statistics and counters that `module` has, under its names: no task vector has them."""
    own = {name for name in module.state_dict() if is_statistic(name) or is_counter(name)}
    return {name: tensor for name, tensor in state.items() if name not in own}


def freeze(module: nn.Module) -> None:
    """Make the layers with statistics normalise by them, and leave them as they are, in training too."""
    for layer in _layers(module):
        layer.train(False)


def has_statistics(module: nn.Module) -> bool:
    """Return whether a module normalises by stored statistics of batches."""
    return bool(_layers(module))


@torch.no_grad()
def estimate(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Measure all statistics again, in place: see `measuring`.

    Args:
        module: with the new weights, in evaluation.
        batches: inputs of the module, (B, ...), on its device.

    Returns:
        The number of inputs.

    Raises:
        ValueError: if a batch has one input, whose variance may not be defined, or there is none.
    """
    count = 0
    with measuring(module):
        for batch in batches:
            if len(batch) < 2:
                raise ValueError(f"statistics of batches: need batches of two inputs or more, got {len(batch)}")
            count += len(batch)
            module(batch)
    if not count:
        raise ValueError("statistics of batches: need inputs, got none")
    return count


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """Measure the statistics of every layer that forward passes reach, in place.

    They become the mean of those of the batches, weighted by the batches' sizes. With batches of one size, this is
    PyTorch's cumulative mean (`momentum=None`). Meanwhile the layers normalise by each batch itself, so that those
    behind them see inputs as in training; everything else, such as dropout, stays as in evaluation.

    Args:
        module: with the new weights, in evaluation; its counters of batches stay.
    """
    layers = _layers(module)
    before = [
        (layer, layer.momentum, [(b, b.clone()) for n, b in layer.named_buffers() if is_counter(n)]) for layer in layers
    ]
    seen: dict[nn.Module, int] = {}

    def weigh(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _NormBase)
        if layer not in seen:
            layer.reset_running_stats()
        seen[layer] = seen.get(layer, 0) + len(inputs[0])
        layer.momentum = len(inputs[0]) / seen[layer]

    hooks = [layer.register_forward_pre_hook(weigh) for layer in layers]
    for layer in layers:
        layer.train(True)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum, counters in before:
            layer.momentum = momentum
            layer.train(False)
            for counter, value in counters:
                counter.copy_(value)


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
