"""What a task and a backbone are: the whole interface between model families and the pipeline.

Shape legend: B samples of a shard, K classes, C, H, W an image's channels, height and width.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.stats import Stats


class NonFiniteOutput(ValueError):
    """The model gave NaN or infinity: a failure with a cause of its own, never a score."""


@dataclass(frozen=True)
class LayerMap:
    """Where in the residual stack each parameter sits.

    Attributes:
        blocks: parameter name -> index of its block, 0 to `num_blocks` - 1; names outside the blocks are absent.
        num_blocks: number of residual blocks, in order of depth.
    """

    blocks: Mapping[str, int]
    num_blocks: int

    def depth(self, name: str) -> float | None:
        """(l - 1) / (L - 1) of equation 1, in [0, 1]; None outside the residual blocks (0 where there is one block)."""
        block = self.blocks.get(name)
        if block is None:
            return None
        return block / (self.num_blocks - 1) if self.num_blocks > 1 else 0.0

    @classmethod
    def from_pattern(cls, names: Iterable[str], pattern: str) -> "LayerMap":
        """Number the blocks by an anchored regular expression with one or more groups of digits.

        Several groups order by (first, second, ...), as ConvNeXt's stages and blocks do; the blocks are then numbered
        in that order. The match starts at the name's first character (`re.match`).

        Raises:
            ValueError: the pattern matches no name, or the numbers of a group leave a gap.
        """
        names = list(names)
        found = {n: tuple(int(g) for g in m.groups()) for n in names if (m := re.match(pattern, n))}
        if not found:
            raise ValueError(f"block pattern {pattern!r}: matches none of {len(names)} parameters, such as {names[:3]}")
        keys = sorted(set(found.values()))
        for before, after in zip([None, *keys], keys, strict=False):
            _check_no_gap(pattern, before, after)
        order = {key: i for i, key in enumerate(keys)}
        return cls({n: order[k] for n, k in found.items()}, len(keys))


def _check_no_gap(pattern: str, before: tuple[int, ...] | None, after: tuple[int, ...]) -> None:
    """Neighbouring blocks differ by 1 in the last number, or by 1 in an earlier one with zeros behind it."""
    expected = [tuple(0 for _ in after)] if before is None else _successors(before)
    if after not in expected:
        where = "the first block" if before is None else f"the block after {'.'.join(map(str, before))}"
        raise ValueError(
            f"block pattern {pattern!r}: {where} is {'.'.join(map(str, after))}, expected one of "
            f"{['.'.join(map(str, e)) for e in expected]}: blocks must be numbered without a gap"
        )


def _successors(key: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [key[:i] + (key[i] + 1,) + (0,) * (len(key) - i - 1) for i in reversed(range(len(key)))]


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What one shard of a task gives for the weights now in the backbone.

    Attributes:
        stats: sums over the shard's samples.
        outcomes: one value a sample, in the data set's order: bool (B,) for accuracy, float32 (B,) for rewards.
    """

    stats: Stats
    outcomes: npt.NDArray[np.bool_] | npt.NDArray[np.float32]


class Backbone(Protocol):
    """A model family: one module whose weights are edited, resident on one device."""

    family: str
    module: nn.Module
    """The tower that is edited; its `named_parameters()` (tied weights once) are what deltas are taken over."""
    layer_map: LayerMap
    device: torch.device
    dtype: torch.dtype

    def select(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Pick and rename from a checkpoint exactly the tensors of `module.named_parameters()`, checking them all.

        Args:
            state: a checkpoint's state dict, in any of the family's known layouts.
            source: where it came from, for errors.

        Raises:
            ValueError: missing, unexpected or mis-shaped tensors; the first names are given.
        """
        ...


class Scored(Protocol):
    """What is scored, by a metric: the samples and their identity, whoever evaluates them."""

    name: str
    metric: str
    fingerprint: str
    """Content hash of the data, class names and templates (hence of the frozen head): part of a score's identity."""

    def num_samples(self, split: str) -> int:
        """Samples of `split` ("val" or "test")."""
        ...


class Task(Scored, Protocol):
    """A data set with a metric, resident on the worker once loaded."""

    def evaluate(self, backbone: Backbone, split: str, start: int, stop: int) -> ShardResult:
        """Score samples start to stop - 1 of `split` under the weights now in `backbone.module`."""
        ...


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """A task as the spec names it, resolved: what a worker needs to load it.

    Attributes:
        name: the task's name in the spec, its results and its tables.
        source: `embedded/NAME`, `vision/NAME`, or a folder (one folder a class), or a registered task's name.
        limits: split -> number of samples to use (the first of the deterministic order), None for all.
        options: class names, templates and other fields of the task's entry in the spec.
        train: whether the training images are wanted too, as a split "train".
    """

    name: str
    source: str
    limits: Mapping[str, int | None] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    train: bool = False
