"""What a candidate is computed from, besides task vectors and the validation split that chooses it; without torch."""

from pipeline.merging.methods import look_up_method
from pipeline.merging.scaling import split_control

#: Methods that learn from labels; all others that learn need inputs only.
_LABELS = ("atlas",)


def learned_from(method: str, scaling: str) -> str:
    """Return what a method and a function of depth learn from: "none", "inputs" or "inputs, labels".

    Example:
        >>> learned_from("sum", "linear"), learned_from("fisher", "linear")
        ('none', 'inputs')
    """
    profile = split_control(scaling)[1]
    if method in _LABELS or profile.labels:
        return "inputs, labels"
    return "inputs" if look_up_method(method, "method").needs or profile.inputs else "none"
