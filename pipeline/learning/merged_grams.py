"""Products of inputs for RegMean++: each block's inputs are those that the merged blocks before it give."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.learning.inputs import ImageEncoder, LabelledImages
from pipeline.learning.statistics import gram
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts, Params, number


@torch.no_grad()
def merged_grams(
    backbone: ImageEncoder, tasks: Sequence[LabelledImages], experts: Experts, params: Params
) -> list[dict[str, Tensor]]:
    """Return X^T X / N of every linear layer in the blocks, for each expert (Nguyen et al., 2025).

    Block by block: with everything before it merged, each expert's block is run on images of the expert's own task;
    then it is merged too. What is outside the blocks is averaged. The module's weights are overwritten.

    Args:
        backbone: runs the models.
        tasks: of each expert; its first `samples` validation images are used.
        experts: all of them take part.
        params: of the method: `samples` and `reduce`.

    Returns:
        For each expert: name of a linear layer's weight (O, I) -> float32 (I, I).
    """
    assert experts.base is not None, "every caller has the base's weights"
    base, samples = experts.base, int(number(params, "samples"))
    found: list[dict[str, Tensor]] = [{} for _ in tasks]
    part = replace(experts, statistics=found)
    merged = METHODS["regmean_pp"].prepare(part, (1,) * len(tasks), params)
    blocks = _blocks(backbone)
    _write(backbone, {name: base[name] + merged(part, name) for name in blocks[0]})
    for names in blocks[1:]:
        for task, delta, grams in zip(tasks, experts.deltas, found, strict=True):
            _write(backbone, {name: base[name] + delta[name] for name in names})
            grams |= gram(backbone, task, samples, within=names)
        _write(backbone, {name: base[name] + merged(part, name) for name in names})
    return found


def _blocks(backbone: ImageEncoder) -> list[list[str]]:
    """Return the names of the parameters outside the blocks, then of each block."""
    groups: list[list[str]] = [[] for _ in range(1 + backbone.layer_map.num_blocks)]
    for name, _ in backbone.module.named_parameters():
        groups[backbone.layer_map.blocks.get(name, -1) + 1].append(name)
    return groups


def _write(backbone: ImageEncoder, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(backbone.module.named_parameters())
    for name, weight in weights.items():
        parameters[name].copy_(weight)
