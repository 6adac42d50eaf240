"""The parameters of mergekit's methods, as its version 0.1.5 declares them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.parameters import Parameter

#: all: one value for a tensor; models: one for each model, the base included; experts: one for each model but the base.
Scope = Literal["all", "models", "experts"]


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter of a method.

    Attributes:
        name: mergekit's.
        scope: what it is given for.
        default: without it, the parameter is required.
        numbers: the allowed numbers; None for true or false.
    """

    name: str
    scope: Scope
    default: float | bool | None
    numbers: Parameter | None = None


def _flag(name: str, default: bool) -> Field:
    return Field(name, "all", default)


def _number(name: str, scope: Scope, default: float | None, low: float = -math.inf, high: float = math.inf) -> Field:
    return Field(name, scope, default, Parameter(name, "", 0.0, low=low, high=high))


#: Saves memory in mergekit; the result is the same.
_INT8_MASK = _flag("int8_mask", False)


def _arithmetic(normalize: bool, rescale: bool, *others: Field) -> tuple[Field, ...]:
    """Return the parameters of methods that add up task vectors."""
    return (
        _number("weight", "experts", None),
        _number("density", "experts", 1.0, low=0),
        _number("lambda", "all", 1.0),
        _flag("normalize", normalize),
        _flag("rescale", rescale),
        _INT8_MASK,
        *others,
    )


_GAMMA = _number("gamma", "experts", 0.01, low=0, high=1)
_EPSILON = _number("epsilon", "experts", 0.15, low=0, high=1)

#: mergekit's name of a method -> its parameters.
FIELDS: Mapping[str, tuple[Field, ...]] = {
    "linear": (_number("weight", "models", None), _flag("normalize", True)),
    "slerp": (_number("t", "all", None, low=0, high=1),),
    "task_arithmetic": _arithmetic(False, False),
    "ties": _arithmetic(True, False),
    "dare_linear": _arithmetic(False, True),
    "dare_ties": _arithmetic(False, True),
    "breadcrumbs": _arithmetic(False, False, _GAMMA),
    "breadcrumbs_ties": _arithmetic(False, False, _GAMMA),
    "della": _arithmetic(True, True, _EPSILON),
    "della_linear": _arithmetic(False, True, _EPSILON),
    "model_stock": (_flag("filter_wise", False),),
    "nuslerp": (
        _number("weight", "experts", None),
        _flag("nuslerp_flatten", True),
        _flag("nuslerp_row_wise", False),
    ),
    "multislerp": (_number("weight", "experts", None), _flag("normalize_weights", True)),
    "karcher": (
        Field("max_iter", "all", 10, Parameter("max_iter", "", 10, "int", low=1)),
        Field("tol", "all", 1e-5, Parameter("tol", "", 1e-5, low=0, open_low=True)),
    ),
    "sce": (_number("select_topk", "all", 1.0), _INT8_MASK),
    "nearswap": (_number("t", "all", None, low=0),),
    "arcee_fusion": (),
}
#: Methods of mergekit that are not available here.
MISSING = ("passthrough", "ram", "ramplus_tl")
#: Every name of a parameter in mergekit's methods.
KNOWN = {field.name for fields in FIELDS.values() for field in fields}
#: Parameters of methods whose value here is fixed -> that value.
FIXED = {"eps": 1e-8}
