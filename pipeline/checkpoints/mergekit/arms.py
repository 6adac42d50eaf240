"""A recipe of mergekit as an arm of a spec: one method, its parameters, and a scaling over depth."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.checkpoints.mergekit.given_parameters import SAME, GivenParameters, Profile, given_parameters, short
from pipeline.checkpoints.mergekit.schedule import Schedule
from pipeline.checkpoints.mergekit.steps import EQUAL_BELOW


@dataclass(frozen=True, slots=True)
class ArmOfRecipe:
    """What a spec says of a recipe.

    Attributes:
        base: the model that task vectors start from; None if the recipe has none.
        experts: the other models.
        method: our name of the method.
        params: its parameters.
        weights: of the experts; () for 1 each.
        profile: lambda over depth; the first value is that outside the layers too.
    """

    base: str | None
    experts: tuple[str, ...]
    method: str
    params: Mapping[str, float | str] = field(default_factory=dict)
    weights: tuple[float, ...] = ()
    profile: Profile = (1.0,)

    @property
    def scaling(self) -> dict[str, Any]:
        """The fields of `scaling` in an arm."""
        first, last = self.profile[0], self.profile[-1]
        if all(abs(value - first) <= SAME for value in self.profile):
            return {"alpha": first}
        steps = len(self.profile) - 1
        line = [first + (last - first) * place / steps for place in range(steps + 1)]
        if all(abs(a - b) <= SAME for a, b in zip(line, self.profile, strict=True)):
            return {"function": "linear", "alpha": first, "beta": short(last - first)}
        knots = [short(value - first) for value in self.profile]
        return {"function": "piecewise", "alpha": first, "beta": 1, "params": {"knots": knots}}


def arm_of(schedule: Schedule) -> ArmOfRecipe:
    """Return a recipe as an arm.

    Raises:
        SpecError: if a spec cannot hold it; the message has the field, its line, and why.

    Example:
        arm_of(read_schedule(Path("mergekit.yml"))).scaling
    """
    return _ARMS[schedule.recipe.config.merge_method](given_parameters(schedule))


def _linear(given: GivenParameters) -> ArmOfRecipe:
    """Take the base as the start: its weight only counts in the sum."""
    weights, profile = given.weights
    total = math.fsum(weights)
    if total == 0:
        raise given.refuse("weight", "adds up to 0")
    if given.one("normalize") and all(profile):
        weights, profile = tuple(weight / total for weight in weights), (1.0,)
    if abs(math.fsum(weights) - 1) > SAME or len(profile) > 1:
        raise given.refuse("weight", "must add up to 1 at every layer")
    shares = tuple(short(w) for model, w in zip(given.models, weights, strict=True) if model != given.base)
    return ArmOfRecipe(given.base, given.experts, "weighted", {}, shares)


def _slerp(given: GivenParameters) -> ArmOfRecipe:
    assert given.base is not None, "checked with the recipe"
    return ArmOfRecipe(None, (given.base, *given.experts), "slerp", {"t": given.one("t")})


def _nuslerp(given: GivenParameters) -> ArmOfRecipe:
    weights, profile = given.weights
    if not all(profile):
        raise given.refuse("weight", "is 0 in some layers")
    by = "tensor" if given.one("nuslerp_flatten") else "columns" if given.one("nuslerp_row_wise") else "rows"
    params = {"between": "changes" if given.base else "weights", "by": by}
    return ArmOfRecipe(given.base, given.experts, "nuslerp", params, weights)


def _multislerp(given: GivenParameters) -> ArmOfRecipe:
    weights, profile = given.weights
    mean = given.one("normalize_weights")
    if len(profile) > 1 and not (mean and all(profile)):
        raise given.refuse("weight", "differs from layer to layer")
    params = {"between": "changes" if given.base else "weights", "aggregate": "mean" if mean else "sum"}
    return ArmOfRecipe(given.base, given.experts, "multislerp", params, weights)


def _karcher(given: GivenParameters) -> ArmOfRecipe:
    if given.base is not None:
        raise given.refuse("base_model", "is one of the models that are averaged")
    params = {"max_iter": given.one("max_iter"), "tol": given.one("tol")}
    return ArmOfRecipe(None, given.models, "karcher", params)


def _model_stock(given: GivenParameters) -> ArmOfRecipe:
    params = {"by": "rows" if given.one("filter_wise") else "tensor", "negative": "keep"}
    return ArmOfRecipe(given.base, given.experts, "model_stock", params)


def _sce(given: GivenParameters) -> ArmOfRecipe:
    density = float(given.one("select_topk"))
    if density <= 0:
        raise given.refuse("select_topk", "is 0")
    return ArmOfRecipe(given.base, given.experts, "sce", {"density": min(1.0, density), "equal_below": EQUAL_BELOW})


def _nearswap(given: GivenParameters) -> ArmOfRecipe:
    if not (t := given.one("t")):
        raise given.refuse("t", "is 0")
    return ArmOfRecipe(given.base, given.experts, "nearswap", {"t": t})


def _arcee_fusion(given: GivenParameters) -> ArmOfRecipe:
    return ArmOfRecipe(given.base, given.experts, "arcee_fusion")


def _arithmetic(
    method: str, election: bool, sparse: Callable[[GivenParameters], Mapping[str, float | str]] | None
) -> Callable[[GivenParameters], ArmOfRecipe]:
    def arm(given: GivenParameters) -> ArmOfRecipe:
        weights, profile = given.weights
        mean, factor = given.one("normalize"), given.shared["lambda"]
        if mean and all(profile):
            profile = (1.0,)  # divides the weights too
        if election and any(value < 0 for value in profile):
            raise given.refuse("weight", "is below 0 in some layers")
        if mean and len(profile) > 1:
            raise given.refuse("weight", "is 0 in some layers, with normalize")
        if len(profile) > 1 and len(set(factor)) > 1:
            raise given.refuse("lambda", "differs from layer to layer, as weight does")
        scale = factor if len(profile) == 1 else tuple(short(value * factor[0]) for value in profile)
        params: dict[str, float | str] = dict(sparse(given)) if sparse else {}
        if sparse:
            params["rescale"] = "l1" if given.one("rescale") else "no"
        params["aggregate"] = "mean" if mean else "sum"
        return _plain(ArmOfRecipe(given.base, given.experts, method, params, weights, scale))

    return arm


def _plain(arm: ArmOfRecipe) -> ArmOfRecipe:
    """Make a factor of equal weights; a mean divides by them."""
    weight, mean = arm.weights[0], arm.params["aggregate"] == "mean"
    if any(other != weight for other in arm.weights) or weight <= 0:
        return arm
    profile = arm.profile if mean else tuple(short(weight * value) for value in arm.profile)
    plain = replace(arm, weights=(), profile=profile)
    return replace(plain, method="average" if mean else "sum", params={}) if arm.method == "weighted" else plain


def _density(given: GivenParameters) -> float:
    density = float(given.same("density"))
    if density <= 0:
        raise given.refuse("density", "is 0")
    return min(1.0, density)


def _magnitude(given: GivenParameters) -> Mapping[str, float | str]:
    return {"keep": short(100 * _density(given)), "trim": "tensor"}


def _outliers(given: GivenParameters) -> Mapping[str, float | str]:
    density = _density(given)
    gamma = 0.0 if density == 1 else float(given.same("gamma"))
    if density + gamma > 1:
        raise given.refuse("density", "adds up to more than 1 with gamma")
    return {"keep": short(100 * density), "top": short(100 * gamma), "round": "down"}


def _random(given: GivenParameters) -> Mapping[str, float | str]:
    return {"drop": short(1 - _density(given))}


def _magprune(given: GivenParameters) -> Mapping[str, float | str]:
    return {"density": _density(given), "epsilon": given.same("epsilon")}


_ARMS: Mapping[str, Callable[[GivenParameters], ArmOfRecipe]] = {
    "linear": _linear,
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "karcher": _karcher,
    "model_stock": _model_stock,
    "sce": _sce,
    "nearswap": _nearswap,
    "arcee_fusion": _arcee_fusion,
    "task_arithmetic": _arithmetic("weighted", False, None),
    "ties": _arithmetic("ties", True, _magnitude),
    "dare_linear": _arithmetic("dare", False, _random),
    "dare_ties": _arithmetic("dare_ties", True, _random),
    "breadcrumbs": _arithmetic("breadcrumbs", False, _outliers),
    "breadcrumbs_ties": _arithmetic("breadcrumbs_ties", True, _outliers),
    "della": _arithmetic("della", True, _magprune),
    "della_linear": _arithmetic("della_linear", False, _magprune),
}
