"""Methods whose coefficients are learned by gradient descent: see `pipeline.learning.coefficients`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.base import Entry, Experts, Method, Params, check_selection, used_experts
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

_SEED = Parameter("seed", "of the order of images", 0, kind="int", low=0)
_STEPS = Parameter("steps", "updates of the coefficients", 500, kind="int", low=1)
_BATCH = Parameter("batch_size", "images of each task a step", 16, kind="int", low=1)


def _prepare(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    """Sum coefficient times task vector; `statistics` holds each coefficient by its parameter's name."""
    used = used_experts(weights)

    def entry(experts: Experts, name: str) -> "Tensor":
        terms = (experts.deltas[place][name] * experts.statistics[place][name].item() for place in used)
        total = next(terms)
        for term in terms:
            total += term
        return total

    return entry


ADAMERGING = Method(
    "coefficients of least entropy on unlabelled images (Yang et al., 2024)",
    _prepare,
    parameters=(
        Parameter(
            "granularity",
            "one coefficient an expert, or one for each layer of it",
            "layer",
            kind="choice",
            choices=("task", "layer"),
        ),
        _STEPS,
        Parameter("lr", "learning rate of Adam", 1e-3, low=0, open_low=True),
        _BATCH,
        Parameter("initial", "every coefficient before the first step", 0.3, low=0, high=1),
        _SEED,
    ),
    check=check_selection("adamerging"),
    needs="learned",
    whole=True,
)
ATLAS = Method(
    "coefficients of least cross-entropy, one for each expert and parameter (Zhang et al., 2024)",
    _prepare,
    parameters=(
        _STEPS,
        Parameter("lr", "learning rate of AdamW", 1e-2, low=0, open_low=True),
        _BATCH,
        Parameter("initial", "every coefficient before the first step", 0.0),
        _SEED,
    ),
    check=check_selection("atlas"),
    needs="learned",
    whole=True,
)
