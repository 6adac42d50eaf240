"""Steps that follow a merge: from its combined vector to another one, before any scaling by depth."""

from pipeline.merging.methods.base import Params
from pipeline.merging.steps import norm_match, svc
from pipeline.merging.steps.base import Step
from pipeline.parameters import look_up, require_known, resolve
from pipeline.recipe import ParamValue

STEPS: dict[str, Step] = {
    "norm_match": norm_match.NORM_MATCH,
    "svc": svc.SVC,
}


def resolve_step(name: str, params: Params, field: str) -> dict[str, ParamValue]:
    """Return every parameter of a step, checked.

    Raises:
        ValueError: if the step or a parameter is unknown, or a value is not allowed; `field` names the step.

    Example:
        >>> resolve_step("norm_match", {"by": "whole"}, "then")
        {'by': 'whole'}
    """
    step = look_up(STEPS, name, field)
    for given in params:
        require_known(f"{field}: {name}", given, [p.name for p in step.parameters], "parameter")
    try:
        return resolve(step.parameters, params)
    except ValueError as error:
        raise ValueError(f"{field}: {name}: {error}") from error
