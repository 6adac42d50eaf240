"""What is done with one tensor: mergekit's methods in terms of ours.

mergekit treats every tensor by itself, and so may every parameter of it differ. Methods that add up sparse task vectors
are two of ours: one makes each task vector sparse by its own parameters, the other adds them up.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.checkpoints.mergekit.settings import Value
from pipeline.merging.methods import METHODS
from pipeline.parameters import resolve
from pipeline.recipe import ParamValue

Params: TypeAlias = tuple[tuple[str, ParamValue], ...]
#: Sums of weights that are smaller divide nothing, as in mergekit.
_NO_SUM = 1e-8
#: Experts whose mean squares add up to less have equal weights in mergekit's SCE.
EQUAL_BELOW = 1e-6


@dataclass(frozen=True, slots=True)
class Call:
    """One of our methods with parameters; those that are not named have their defaults."""

    method: str
    params: Params = ()

    @classmethod
    def of(cls, method: str, **params: ParamValue) -> "Call":
        """Name the parameters."""
        return cls(method, tuple(params.items()))

    def resolved(self) -> dict[str, ParamValue]:
        """Return every parameter of the method."""
        return resolve(METHODS[self.method].parameters, dict(self.params))


@dataclass(frozen=True, slots=True)
class Step:
    """How a tensor is merged: base + factor * combination of experts.

    Attributes:
        base: the model that task vectors start from; None for zeros, so that they are the models' weights.
        experts: the models.
        combination: the method that combines their task vectors.
        weights: one for each expert.
        factor: of the combined vector.
        sparse: for each expert, the method that its task vector goes through first; () for none.
    """

    base: str | None
    experts: tuple[str, ...]
    combination: Call
    weights: tuple[float, ...]
    factor: float = 1.0
    sparse: tuple[Call, ...] = ()

    def check(self) -> None:
        """Check weights and parameters of the combination.

        Raises:
            ValueError: if the method cannot use them.
        """
        METHODS[self.combination.method].check(self.weights, self.combination.resolved())


@dataclass(frozen=True, slots=True)
class Given:
    """mergekit's input of one tensor.

    Attributes:
        method: mergekit's name.
        models: all models, in the recipe's order.
        base: one of the models, or None.
        size: entries of the tensor.
        shared: parameter -> value, of those that all models share.
        own: for each model, parameter -> value.
    """

    method: str
    models: tuple[str, ...]
    base: str | None
    size: int
    shared: Mapping[str, Value]
    own: Sequence[Mapping[str, Value]]

    @property
    def experts(self) -> tuple[str, ...]:
        """The models but the base."""
        return tuple(model for model in self.models if model != self.base)

    def of_experts(self, name: str) -> tuple[float, ...]:
        """Return a parameter of each model but the base."""
        return tuple(p[name] for model, p in zip(self.models, self.own, strict=True) if model != self.base)


def percent(entries: int, size: int) -> float:
    """Return the share of `size` entries, in percent, that is rounded down to a number of entries.

    Example:
        >>> int(0.29 * 100), percent(int(0.29 * 100), 100)
        (28, 28.5)
    """
    return min(100.0, 100 * (entries + 0.5) / size)


def _linear(given: Given) -> Step:
    weights = tuple(own["weight"] for own in given.own)
    how = "mean" if given.shared["normalize"] else "sum"
    return Step(None, given.models, Call.of("weighted", aggregate=how), weights)


def _slerp(given: Given) -> Step:
    assert given.base is not None, "checked with the recipe"
    return Step(None, (given.base, *given.experts), Call.of("slerp", t=given.shared["t"]), (1, 1))


def _nuslerp(given: Given) -> Step:
    by = "tensor" if given.shared["nuslerp_flatten"] else "columns" if given.shared["nuslerp_row_wise"] else "rows"
    weights = given.of_experts("weight")
    return Step(given.base, given.experts, Call.of("nuslerp", by=by), weights if any(weights) else (1, 1))


def _multislerp(given: Given) -> Step:
    how = "mean" if given.shared["normalize_weights"] else "sum"
    return Step(given.base, given.experts, Call.of("multislerp", aggregate=how), given.of_experts("weight"))


def _karcher(given: Given) -> Step:
    call = Call.of("karcher", max_iter=given.shared["max_iter"], tol=given.shared["tol"])
    return Step(None, given.models, call, (1,) * len(given.models))


def _model_stock(given: Given) -> Step:
    by = "rows" if given.shared["filter_wise"] else "tensor"
    return Step(given.base, given.experts, Call.of("model_stock", by=by, negative="keep"), (1,) * len(given.experts))


def _sce(given: Given) -> Step:
    density = given.shared["select_topk"]
    call = Call.of("sce", density=min(1.0, density), equal_below=EQUAL_BELOW) if density > 0 else Call("zero")
    return Step(given.base, given.experts, call, (1,) * len(given.experts))


def _nearswap(given: Given) -> Step:
    call = Call.of("nearswap", t=given.shared["t"]) if given.shared["t"] else Call("zero")
    return Step(given.base, given.experts, call, (1,))


def _arcee_fusion(given: Given) -> Step:
    return Step(given.base, given.experts, Call("arcee_fusion"), (1,))


#: Makes a task vector sparse: (its own parameters, size, our rescale) -> one of our methods.
_Sparse: TypeAlias = Callable[[Mapping[str, float], int, str], Call]


def _arithmetic(sparse: _Sparse | None, election: bool) -> Callable[[Given], Step]:
    def step(given: Given) -> Step:
        weights, shared = given.of_experts("weight"), given.shared
        own = [p for model, p in zip(given.models, given.own, strict=True) if model != given.base]
        calls = tuple(_sparse(sparse, p, given.size, bool(shared["rescale"])) for p in own) if sparse else ()
        factor = float(shared["lambda"])
        if election:
            by = "mean" if shared["normalize"] else "sum"
            call = Call.of("ties", keep=100, trim="tensor", aggregate=by) if any(weights) else Call("zero")
            return Step(given.base, given.experts, call, weights, factor, calls)
        total = math.fsum(weights)
        divisor = total if shared["normalize"] and abs(total) >= _NO_SUM else 1
        return Step(given.base, given.experts, Call.of("weighted"), weights, factor / divisor, calls)

    return step


def _sparse(sparse: _Sparse, own: Mapping[str, float], size: int, rescale: bool) -> Call:
    """Take the ends of the range first, where mergekit looks at no other parameter."""
    if own["density"] >= 1:
        return Call("single")
    return sparse(own, size, "l1" if rescale else "no") if own["density"] > 0 and size else Call("zero")


def _magnitude(own: Mapping[str, float], size: int, rescale: str) -> Call:
    """Trim as `ties` does, but without its election, which takes as long again."""
    kept = percent(max(1, int(own["density"] * size)), size)
    return Call.of("breadcrumbs", keep=kept, top=0, round="down", rescale=rescale)


def _outliers(own: Mapping[str, float], size: int, rescale: str) -> Call:
    """If density and gamma add up to more than 1, fewer of the largest entries go."""
    kept = int(own["density"] * size)
    gone = min(int(own["gamma"] * size), size - kept)
    if not kept:
        return Call("zero")
    return Call.of("breadcrumbs", keep=percent(kept, size), top=percent(gone, size), round="down", rescale=rescale)


def _random(own: Mapping[str, float], size: int, rescale: str) -> Call:
    return Call.of("dare", drop=1 - own["density"], rescale=rescale)


def _magprune(own: Mapping[str, float], size: int, rescale: str) -> Call:
    call = Call.of("della_linear", density=own["density"], epsilon=own["epsilon"], rescale=rescale)
    METHODS[call.method].check((1,), call.resolved())
    return call


#: mergekit's name of a method -> how it becomes a step.
STEPS: Mapping[str, Callable[[Given], Step]] = {
    "linear": _linear,
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "karcher": _karcher,
    "model_stock": _model_stock,
    "sce": _sce,
    "nearswap": _nearswap,
    "arcee_fusion": _arcee_fusion,
    "task_arithmetic": _arithmetic(None, election=False),
    "ties": _arithmetic(_magnitude, election=True),
    "dare_linear": _arithmetic(_random, election=False),
    "dare_ties": _arithmetic(_random, election=True),
    "breadcrumbs": _arithmetic(_outliers, election=False),
    "breadcrumbs_ties": _arithmetic(_outliers, election=True),
    "della": _arithmetic(_magprune, election=True),
    "della_linear": _arithmetic(_magprune, election=False),
}
