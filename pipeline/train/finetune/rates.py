"""Learning rates by depth and by step."""

import math
import re
from collections.abc import Mapping, Sequence

from tasks.base import LayerMap

#: Parameters behind the last block in the image towers of open_clip, timm and transformers, at the top of the module or
#: inside a trunk; all others outside the blocks come before a block.
_BEHIND = re.compile(r"(?:trunk\.)?(?:ln_post|proj|norm|layernorm|fc_norm|conv_head|head|attn_pool)(?:\.|$)")
#: A stage of a ConvNeXt: the layers that shrink the image before it go with its first block.
_STAGE = re.compile(r"trunk\.stages\.\d+\.")


def nearest_block(name: str, layer_map: LayerMap) -> int:
    """Return the block of a parameter, or the nearest one: the first for embeddings, the last for the projection."""
    if name in layer_map.blocks:
        return layer_map.blocks[name]
    if _BEHIND.match(name):
        return layer_map.num_blocks - 1
    stage = _STAGE.match(name)
    return min((b for n, b in layer_map.blocks.items() if stage and n.startswith(stage[0])), default=0)


def rate_factors(names: Sequence[str], layer_map: LayerMap, block_rates: Sequence[float]) -> Mapping[str, float]:
    """Return parameter name -> factor of the learning rate, 0 for a frozen one.

    Args:
        names: of the module's parameters.
        layer_map: its blocks.
        block_rates: one factor for each block, shallowest first.
    """
    return {name: block_rates[nearest_block(name, layer_map)] for name in names}


def rate_at(step: int, total: int, warm_up: float) -> float:
    """Return the factor of the peak rate at `step` (from 0): a linear rise, then half a cosine down to 0.

    This is the authors' schedule; the warm-up is a share of the `total` steps, and the step after it has the peak rate.
    """
    rising = math.ceil(warm_up * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))
