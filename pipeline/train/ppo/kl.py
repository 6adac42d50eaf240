"""Keep a policy near the SFT model: a coefficient that follows the KL, and a limit above which the KL is too large."""

from pipeline.train.ppo.spec import Kl

#: Clip of the relative error, and strength of the correction (Ziegler et al. 2019, section 2.2).
_MOST, _STRENGTH = 0.2, 0.1
#: Limit of the KL in nats a completion, if the spec has neither a target nor a stop.
_LARGE = 25.0


def next_coef(coef: float, kl: float, target: float | None) -> float:
    """Return the coefficient of the next update.

    Args:
        coef: of this update.
        kl: of this update, in nats a completion.
        target: KL to reach; None keeps the coefficient.
    """
    if target is None:
        return coef
    error = min(max((kl - target) / target, -_MOST), _MOST)
    return coef * (1 + _STRENGTH * error)


def limit(kl: Kl) -> float:
    """Return the KL above which a policy ran away: twice the stop, or twice the target, or 25 nats."""
    allowed = kl.stop or kl.target
    return 2 * allowed if allowed else _LARGE
