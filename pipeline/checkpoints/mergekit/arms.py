"""A recipe of mergekit as an arm of a spec: one method, its parameters, and a scaling over depth."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.checkpoints.mergekit.document import RecipeFile
from pipeline.checkpoints.mergekit.fields import Field
from pipeline.checkpoints.mergekit.schedule import Schedule
from pipeline.checkpoints.mergekit.settings import Setting, Value, method_fields
from pipeline.checkpoints.mergekit.steps import EQUAL_BELOW
from pipeline.spec.yaml_reader import ValuePath

#: End of errors about what a spec has no field for.
_CAN = "a spec cannot hold this, but lines merge --recipe merges by it"
#: Profiles that differ less are the same: mergekit's numbers have a few digits.
_SAME = 1e-9
#: Values at evenly spaced depths; one value is the same at all depths.
Profile = tuple[float, ...]


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
        if all(abs(value - first) <= _SAME for value in self.profile):
            return {"alpha": first}
        steps = len(self.profile) - 1
        line = [first + (last - first) * place / steps for place in range(steps + 1)]
        if all(abs(a - b) <= _SAME for a, b in zip(line, self.profile, strict=True)):
            return {"function": "linear", "alpha": first, "beta": _short(last - first)}
        knots = [_short(value - first) for value in self.profile]
        return {"function": "piecewise", "alpha": first, "beta": 1, "params": {"knots": knots}}


def arm_of(schedule: Schedule) -> ArmOfRecipe:
    """Return a recipe as an arm.

    Raises:
        SpecError: if a spec cannot hold it; the message has the field, its line, and why.

    Example:
        arm_of(read_schedule(Path("mergekit.yml"))).scaling
    """
    recipe = schedule.recipe
    if len(recipe.slices) > 1:
        raise recipe.error(("slices",), f"differs from layer to layer: {_CAN}")
    at, part = recipe.slices[0]
    base = part.base_model or recipe.config.base_model
    reader, scopes = _Profiles(recipe), schedule.scopes[0]
    fields = method_fields(recipe)
    shared = {n: reader.read(scopes.shared.get(n, ()), f, at) for n, f in fields.items() if f.scope == "all"}
    own = []
    for place, settings in enumerate(scopes.models):
        is_base, where = part.sources[place].model == base, recipe.source_path(at, place)
        mine = [f for f in fields.values() if f.scope == "models" or (f.scope == "experts" and not is_base)]
        own.append({f.name: reader.read(settings.get(f.name, ()), f, where) for f in mine})
    models = tuple(source.model for source in part.sources)
    return _ARMS[recipe.config.merge_method](_Given(recipe, models, base, shared, own, reader.places))


@dataclass(slots=True)
class _Profiles:
    """Reads settings that hold for all tensors."""

    recipe: RecipeFile
    places: dict[str, ValuePath] = field(default_factory=dict)
    """Parameter -> the first place that sets it."""

    def read(self, settings: Sequence[Setting], parameter: Field, where: ValuePath) -> Profile:
        if not settings:
            if parameter.default is None:
                raise self.recipe.error((*where, "parameters", parameter.name), "is required, and nothing gives it")
            return (parameter.default,)
        self.places.setdefault(parameter.name, settings[0].at)
        condition = settings[0].conditions[0]
        if condition.filter not in (None, "*"):
            raise self.recipe.error(settings[0].at, f"differs by the names of tensors: {_CAN}")
        return condition.values


@dataclass(frozen=True, slots=True)
class _Given:
    """A recipe whose parameters are the same for all tensors of a depth."""

    recipe: RecipeFile
    models: tuple[str, ...]
    base: str | None
    shared: Mapping[str, Profile]
    own: Sequence[Mapping[str, Profile]]
    places: Mapping[str, ValuePath]

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(model for model in self.models if model != self.base)

    def refuse(self, name: str, what: str) -> ValueError:
        return self.recipe.error(self.places.get(name, (name,)), f"{what}: {_CAN}")

    def one(self, name: str) -> Value:
        """Return a parameter of all models that is the same at all depths."""
        return self._constant(name, self.shared[name])

    def same(self, name: str) -> Value:
        """Return a parameter that is the same for all experts at all depths."""
        values = [own[name] for own in self.own if name in own]
        if any(value != values[0] for value in values):
            raise self.refuse(name, "differs from model to model")
        return self._constant(name, values[0])

    def _constant(self, name: str, profile: Profile) -> Value:
        if any(value != profile[0] for value in profile):
            raise self.refuse(name, "differs from layer to layer")
        return profile[0]

    @property
    def weights(self) -> tuple[tuple[float, ...], Profile]:
        """Weights of the models that have one, and the profile that multiplies all of them."""
        given = [own["weight"] for own in self.own if "weight" in own]
        count = max(map(len, given))
        if count == 1:
            return tuple(weight[0] for weight in given), (1.0,)
        wide = [weight * count if len(weight) == 1 else weight for weight in given]
        if any(len(weight) != count for weight in wide):
            raise self.refuse("weight", "lists of different lengths")
        profile = next((weight for weight in wide if any(weight)), (1.0,) * count)
        peak = max(range(count), key=lambda place: abs(profile[place]))
        factors = [_short(weight[peak] / profile[peak]) for weight in wide]
        for weight, factor in zip(wide, factors, strict=True):
            if any(abs(w - factor * p) > _SAME for w, p in zip(weight, profile, strict=True)):
                raise self.refuse("weight", "differs from layer to layer, and not in the same way for all models")
        return tuple(factors), profile


def _short(value: float) -> float:
    """Remove the last digits, which are rounding."""
    return float(f"{value:.12g}")


def _linear(given: _Given) -> ArmOfRecipe:
    """Take the base as the start: its weight only counts in the sum."""
    weights, profile = given.weights
    total = math.fsum(weights)
    if total == 0:
        raise given.refuse("weight", "adds up to 0")
    if given.one("normalize") and all(profile):
        weights, profile = tuple(weight / total for weight in weights), (1.0,)
    if abs(math.fsum(weights) - 1) > _SAME or len(profile) > 1:
        raise given.refuse("weight", "must add up to 1 at every layer")
    shares = tuple(_short(w) for model, w in zip(given.models, weights, strict=True) if model != given.base)
    return ArmOfRecipe(given.base, given.experts, "weighted", {}, shares)


def _slerp(given: _Given) -> ArmOfRecipe:
    assert given.base is not None, "checked with the recipe"
    return ArmOfRecipe(None, (given.base, *given.experts), "slerp", {"t": given.one("t")})


def _nuslerp(given: _Given) -> ArmOfRecipe:
    weights, profile = given.weights
    if not all(profile):
        raise given.refuse("weight", "is 0 in some layers")
    by = "tensor" if given.one("nuslerp_flatten") else "columns" if given.one("nuslerp_row_wise") else "rows"
    params = {"between": "changes" if given.base else "weights", "by": by}
    return ArmOfRecipe(given.base, given.experts, "nuslerp", params, weights)


def _multislerp(given: _Given) -> ArmOfRecipe:
    weights, profile = given.weights
    mean = given.one("normalize_weights")
    if len(profile) > 1 and not (mean and all(profile)):
        raise given.refuse("weight", "differs from layer to layer")
    params = {"between": "changes" if given.base else "weights", "aggregate": "mean" if mean else "sum"}
    return ArmOfRecipe(given.base, given.experts, "multislerp", params, weights)


def _karcher(given: _Given) -> ArmOfRecipe:
    if given.base is not None:
        raise given.refuse("base_model", "is one of the models that are averaged")
    params = {"max_iter": given.one("max_iter"), "tol": given.one("tol")}
    return ArmOfRecipe(None, given.models, "karcher", params)


def _model_stock(given: _Given) -> ArmOfRecipe:
    params = {"by": "rows" if given.one("filter_wise") else "tensor", "negative": "keep"}
    return ArmOfRecipe(given.base, given.experts, "model_stock", params)


def _sce(given: _Given) -> ArmOfRecipe:
    density = float(given.one("select_topk"))
    if density <= 0:
        raise given.refuse("select_topk", "is 0")
    return ArmOfRecipe(given.base, given.experts, "sce", {"density": min(1.0, density), "equal_below": EQUAL_BELOW})


def _nearswap(given: _Given) -> ArmOfRecipe:
    if not (t := given.one("t")):
        raise given.refuse("t", "is 0")
    return ArmOfRecipe(given.base, given.experts, "nearswap", {"t": t})


def _arcee_fusion(given: _Given) -> ArmOfRecipe:
    return ArmOfRecipe(given.base, given.experts, "arcee_fusion")


def _arithmetic(
    method: str, election: bool, sparse: Callable[[_Given], Mapping[str, float | str]] | None
) -> Callable[[_Given], ArmOfRecipe]:
    def arm(given: _Given) -> ArmOfRecipe:
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
        scale = factor if len(profile) == 1 else tuple(_short(value * factor[0]) for value in profile)
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
    profile = arm.profile if mean else tuple(_short(weight * value) for value in arm.profile)
    plain = replace(arm, weights=(), profile=profile)
    return replace(plain, method="average" if mean else "sum", params={}) if arm.method == "weighted" else plain


def _density(given: _Given) -> float:
    density = float(given.same("density"))
    if density <= 0:
        raise given.refuse("density", "is 0")
    return min(1.0, density)


def _magnitude(given: _Given) -> Mapping[str, float | str]:
    return {"keep": _short(100 * _density(given)), "trim": "tensor"}


def _outliers(given: _Given) -> Mapping[str, float | str]:
    density = _density(given)
    gamma = 0.0 if density == 1 else float(given.same("gamma"))
    if density + gamma > 1:
        raise given.refuse("density", "adds up to more than 1 with gamma")
    return {"keep": _short(100 * density), "top": _short(100 * gamma), "round": "down"}


def _random(given: _Given) -> Mapping[str, float | str]:
    return {"drop": _short(1 - _density(given))}


def _magprune(given: _Given) -> Mapping[str, float | str]:
    return {"density": _density(given), "epsilon": given.same("epsilon")}


_ARMS: Mapping[str, Callable[[_Given], ArmOfRecipe]] = {
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
