"""How fast a parameter learns, by its depth and by the step."""

import math
import re
from collections.abc import Mapping, Sequence

from tasks.base import LayerMap

#: What comes behind the last block in the image towers of open_clip and timm; all else outside the blocks comes before
#: one. A name at the top of the module and one inside a trunk mean the same.
_BEHIND = re.compile(r"(?:trunk\.)?(?:ln_post|proj|norm|fc_norm|head|attn_pool)(?:\.|$)")
#: ConvNeXt shrinks the image between its stages: that goes with the first block of the stage.
_STAGE = re.compile(r"trunk\.stages\.\d+\.")


def nearest_block(name: str, layer_map: LayerMap) -> int:
    """The block that a parameter belongs to, or goes with: embeddings with the first, the projection with the last."""
    if name in layer_map.blocks:
        return layer_map.blocks[name]
    if _BEHIND.match(name):
        return layer_map.num_blocks - 1
    stage = _STAGE.match(name)
    return min((b for n, b in layer_map.blocks.items() if stage and n.startswith(stage[0])), default=0)


def rate_factors(names: Sequence[str], layer_map: LayerMap, block_rates: Sequence[float]) -> Mapping[str, float]:
    """Parameter name -> factor of the learning rate; 0 for a frozen one.

    Args:
        names: of the module's parameters.
        layer_map: where its blocks are.
        block_rates: one factor for each block, shallowest first.
    """
    return {name: block_rates[nearest_block(name, layer_map)] for name in names}


def rate_at(step: int, total: int, warm_up: float) -> float:
    """Factor of the peak rate at `step` (from 0): a linear rise, then half a cosine down to 0.

    The authors' schedule, with the warm-up as a share of the `total` steps: the step after it has the full rate.
    """
    rising = math.ceil(warm_up * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))
