"""By how much samples with choices are wrong.

Shape legend: B samples, K choices.
"""

import torch
from torch import Tensor


def wrong_minus_right(scores_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Return the largest score of a wrong choice minus the right one's (B,): see `tasks.base.ShardResult`.

    Args:
        scores_BK: of the choices; minus infinity where a sample has none.
        labels_B: places of the right ones.

    Example:
        >>> wrong_minus_right(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([1]))
        tensor([2.])
    """
    own_B1 = labels_B[:, None]
    return scores_BK.scatter(1, own_B1, -torch.inf).amax(dim=1) - scores_BK.gather(1, own_B1)[:, 0]
