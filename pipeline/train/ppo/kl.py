"""What holds a policy near the SFT model: a coefficient that follows the KL, and a limit at which training ends."""

from pipeline.train.ppo.spec import Kl

#: How far a coefficient may move in an update, and how strongly it does: Ziegler et al. 2019, section 2.2.
_MOST, _STRENGTH = 0.2, 0.1
#: Where neither a target nor a stop says how large a KL is too large, in nats a completion.
_LARGE = 25.0


def next_coef(coef: float, kl: float, target: float | None) -> float:
    """The coefficient of the next update.

    Args:
        coef: of this update.
        kl: that this update came to, in nats a completion.
        target: which KL is wanted; None leaves the coefficient.
    """
    if target is None:
        return coef
    error = min(max((kl - target) / target, -_MOST), _MOST)
    return coef * (1 + _STRENGTH * error)


def limit(kl: Kl) -> float:
    """Above which KL a policy is said to have run away: twice the stop, or twice the target, or 25 nats."""
    wanted = kl.stop or kl.target
    return 2 * wanted if wanted else _LARGE
