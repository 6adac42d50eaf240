"""Fine-tuning methods: their parameters and the learning rate of each block (appendices C.8.3 and C.8.4)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.parameters import Parameter
from pipeline.recipe import ParamValue

#: (number of blocks, parameters) -> one factor of the learning rate for each block, in [0, 1]; 0 freezes it.
BlockRates = Callable[[int, Mapping[str, ParamValue]], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class FinetuneMethod:
    """A way to fine-tune the image tower.

    Attributes:
        doc: a description in one line, with its source.
        rates: of the blocks, shallowest first. Parameters before the blocks have the rate of the first, and those
            behind the blocks that of the last.
        parameters: of the method; specs are checked against them.
        low_rank: whether low-rank factors are trained in place of the weights.
    """

    doc: str
    rates: BlockRates
    parameters: tuple[Parameter, ...] = ()
    low_rank: bool = False


def _full(blocks: int, params: Mapping[str, ParamValue]) -> tuple[float, ...]:
    return (1.0,) * blocks


def _linear(blocks: int, params: Mapping[str, ParamValue]) -> tuple[float, ...]:
    return tuple(block / (blocks - 1) for block in range(blocks)) if blocks > 1 else (1.0,)


def _exponential(blocks: int, params: Mapping[str, ParamValue]) -> tuple[float, ...]:
    factor = params["factor"]
    assert isinstance(factor, float | int)
    return tuple(float(factor) ** (blocks - 1 - block) for block in range(blocks))


def _half_frozen(blocks: int, params: Mapping[str, ParamValue]) -> tuple[float, ...]:
    return tuple(float(block >= blocks // 2) for block in range(blocks))


def _last_block(blocks: int, params: Mapping[str, ParamValue]) -> tuple[float, ...]:
    return tuple(float(block == blocks - 1) for block in range(blocks))


METHODS: Mapping[str, FinetuneMethod] = {
    "full": FinetuneMethod("every parameter at the same rate", _full),
    "linear": FinetuneMethod("LinLR: from 0 at the first block to the full rate at the last (C.8.3)", _linear),
    "exponential": FinetuneMethod(
        "ExpLR: the full rate at the last block, times `factor` for each block towards the first (C.8.3)",
        _exponential,
        (Parameter("factor", "from one block to the next shallower one", 0.5, low=0, high=1, open_low=True),),
    ),
    "half_frozen": FinetuneMethod("HalfFT: the first half of the blocks is frozen (C.8.3)", _half_frozen),
    "last_block": FinetuneMethod("LastFT: all blocks but the last are frozen (C.8.3)", _last_block),
    "lora": FinetuneMethod(
        "LoRA: W + scale * B A on the linear layers of every block (Hu et al. 2022; C.8.4)",
        _full,
        (
            Parameter("rank", "inner dimension of the factors", 16, "int", low=1),
            Parameter("scale", "alpha / rank; the paper has alpha = rank", 1.0, low=0, open_low=True),
        ),
        low_rank=True,
    ),
}
