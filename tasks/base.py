"""Interfaces of tasks and backbones: all that the pipeline knows of a model family.

Shape legend: B samples of a shard, K classes, C, H, W an image's channels, height and width.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.errors import NonFiniteError as NonFiniteError
from tasks.errors import NonFiniteOutput as NonFiniteOutput
from tasks.stats import Stats


@dataclass(frozen=True)
class LayerMap:
    """The residual block of each parameter.

    Attributes:
        blocks: parameter name -> index of its block, 0 to `num_blocks` - 1; names outside the blocks are absent.
        num_blocks: number of residual blocks, in order of depth.
    """

    blocks: Mapping[str, int]
    num_blocks: int

    def depth(self, name: str) -> float | None:
        """Return (l - 1) / (L - 1) of equation 1, in [0, 1]; 0 if there is one block, None outside the blocks."""
        block = self.blocks.get(name)
        if block is None:
            return None
        return block / (self.num_blocks - 1) if self.num_blocks > 1 else 0.0

    @classmethod
    def from_pattern(cls, names: Iterable[str], pattern: str, gaps: bool = False) -> "LayerMap":
        r"""Number the blocks by an anchored regular expression with one or more groups of digits.

        Several groups, like ConvNeXt's stage and block, order the blocks by (first, second, ...). The match starts at
        the name's first character (`re.match`).

        Args:
            names: of parameters.
            pattern: the regular expression.
            gaps: accept numbers that begin above 0 or leave gaps; the blocks are numbered from 0 in their order.

        Raises:
            ValueError: if the pattern matches no name, or the numbers of a group leave a gap.

        Example:
            >>> layers = LayerMap.from_pattern(["conv1.weight", "blocks.0.w", "blocks.1.w"], r"blocks\.(\d+)\.")
            >>> layers.num_blocks, layers.depth("blocks.1.w"), layers.depth("conv1.weight")
            (2, 1.0, None)
        """
        names = list(names)
        found = block_numbers(names, pattern)
        if not found:
            raise ValueError(
                f"block pattern {pattern!r}: matches none of {len(names)} parameters, for example {names[:3]}"
            )
        keys = sorted(set(found.values()))
        if not gaps and (gap := first_gap(keys)):
            raise ValueError(f"block pattern {pattern!r}: {gap}: blocks must be numbered without a gap")
        order = {key: i for i, key in enumerate(keys)}
        return cls({n: order[k] for n, k in found.items()}, len(keys))


def block_numbers(names: Iterable[str], pattern: str) -> dict[str, tuple[int, ...]]:
    """Return the numbers that the groups of `pattern` match, by the names that it matches."""
    return {n: tuple(int(g) for g in m.groups()) for n in names if (m := re.match(pattern, n))}


def first_gap(keys: Sequence[tuple[int, ...]]) -> str | None:
    """Describe the first of sorted block numbers that does not follow the one before, or None.

    The number that follows is 1 more in the last place, or in an earlier one with zeros after it; the first is 0.
    """
    for before, after in zip([None, *keys], keys, strict=False):
        expected = [tuple(0 for _ in after)] if before is None else _successors(before)
        if after not in expected:
            where = "the first block" if before is None else f"the block after {dotted(before)}"
            return f"{where} is {dotted(after)}, expected one of {[dotted(e) for e in expected]}"
    return None


def dotted(key: tuple[int, ...]) -> str:
    """Return block numbers as names have them, for example 2.1."""
    return ".".join(map(str, key))


def _successors(key: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [key[:i] + (key[i] + 1,) + (0,) * (len(key) - i - 1) for i in reversed(range(len(key)))]


@dataclass(frozen=True, slots=True)
class ShardResult:
    """The scores of one shard under the backbone's current weights.

    Attributes:
        stats: sums over the shard's samples.
        outcomes: one value a sample, in the data set's order: bool (B,) for accuracy, float32 (B,) for rewards.
        margins: by how much each sample is wrong, float32 (B,): the best wrong choice's log-likelihood or logit minus
            the right one's, below 0 if it is right; None if the task has none.

    Example:
        >>> right = np.array([True, False, True])
        >>> ShardResult(Stats(3, 2.0, 2.0), right).stats.mean
        0.6666666666666666
    """

    stats: Stats
    outcomes: npt.NDArray[np.bool_] | npt.NDArray[np.float32]
    margins: npt.NDArray[np.float32] | None = None


class Backbone(Protocol):
    """A model family: a module on one device whose weights are edited.

    A plug-in registers a function that builds one:

    Example:
        >>> from tasks.registry import BACKBONES
        >>> def build(model, state, device, dtype, options=None):
        ...     return MyBackbone(model, state, device, dtype)
        >>> BACKBONES.register("docs-family", build)
    """

    family: str
    module: nn.Module
    """The edited tower. Task vectors are differences of its `named_parameters()`, tied weights once."""
    layer_map: LayerMap
    device: torch.device
    dtype: torch.dtype

    def select(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Select, rename and check the tensors of `module.named_parameters()` from a checkpoint.

        Args:
            state: a checkpoint's state dict, in any layout that the family knows.
            source: where it came from, for errors.

        Raises:
            ValueError: if tensors are missing, unexpected or mis-shaped; the first names are given.
        """
        ...


@runtime_checkable
class StatesInputs(Protocol):
    """A backbone whose configuration counts: two of the same weights and names may compute different outputs."""

    library: str
    """The package that computes the model, whose version is recorded."""
    inputs: str
    """Content hash of configuration and preprocessing: part of every recipe's identity."""


@runtime_checkable
class KeepsOutputs(Protocol):
    """A backbone that keeps outputs of modules outside the blocks, for candidates with the same weights there."""

    def set_outside(self, weights: Hashable | None) -> None:
        """Take the identity of the weights outside the blocks: equal ones mean the same bits; None if it is not known.

        The weights may change after every call with None.
        """
        ...

    def kept_bytes(self, tokens: int, candidates: int) -> int:
        """Return the most bytes of outputs that are kept for candidates that read so many tokens each."""
        ...


@runtime_checkable
class KeepsStart(Protocol):
    """A backbone that keeps what enters its second block, for candidates with the same weights before it."""

    def set_start(self, weights: Hashable | None) -> None:
        """Take the identity of the weights outside the blocks and in the first one: see `KeepsOutputs.set_outside`."""
        ...

    def kept_start(self, samples: int, candidates: int) -> int:
        """Return the most bytes that are kept for candidates that read so many samples each."""
        ...


class Scored(Protocol):
    """The samples that a metric scores, and their identity."""

    name: str
    metric: str
    fingerprint: str
    """Content hash of all that a score depends on besides the weights: data, class names, templates."""

    def num_samples(self, split: str) -> int:
        """Return the number of samples of `split` ("val" or "test")."""
        ...


class Task(Scored, Protocol):
    """A data set with a metric, held in the worker's memory.

    Example:
        A task that scores how close the first parameter is to zero:

        >>> class Nearness:
        ...     name, metric, fingerprint = "nearness", "reward", "nearness, version 1"
        ...     def num_samples(self, split):
        ...         return 1
        ...     def evaluate(self, backbone, split, start, stop):
        ...         size = float(next(backbone.module.parameters()).abs().mean())
        ...         return ShardResult(Stats(1, -size, size * size), np.array([-size], np.float32))
        >>> Nearness().num_samples("test")
        1
    """

    def evaluate(self, backbone: Backbone, split: str, start: int, stop: int) -> ShardResult:
        """Score samples start to stop - 1 of `split` under the current weights of `backbone.module`."""
        ...


@runtime_checkable
class ScoresRows(Protocol):
    """A task that scores any of its samples, so that a search can begin with those that tell candidates apart."""

    def together(self, split: str) -> int:
        """Return how many consecutive samples are scored together, since others beside them would change their bits.

        It is 1 if any samples can be scored together, and 0 if they cannot be scored alone. The last may be fewer.
        """
        ...

    def evaluate_rows(self, backbone: Backbone, split: str, rows: Sequence[int]) -> ShardResult:
        """Score samples of `split` in this order under the current weights of `backbone.module`."""
        ...


@runtime_checkable
class Sized(Protocol):
    """A task whose value may be a ratio of sums over samples, such as bits over bytes.

    Its outcomes are the numerator's parts over the mean size, so that their mean is the ratio.
    """

    def sizes(self, split: str) -> Sequence[int]:
        """Return the denominator's part of each sample, in the order of outcomes; none if the value is a mean."""
        ...


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """One entry of the spec's `tasks`: what a worker needs to load the task.

    Attributes:
        name: the task's name in the spec, its results and its tables.
        source: `embedded/NAME`, `vision/NAME`, a folder (one folder a class), `lm_eval/NAME`, or a registered task's
            name.
        limits: split -> number of samples to use (the first of the fixed order), None for all.
        options: class names, templates and other fields of the task's entry in the spec.
        train: whether to load the training images or rows too, as a split "train".
        head_seed: of a new classifier's head that is trained with an encoder; None for frozen heads.
        test_only: whether val is never scored, as in `ood`.
    """

    name: str
    source: str
    limits: Mapping[str, int | None] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    train: bool = False
    head_seed: int | None = None
    test_only: bool = False
