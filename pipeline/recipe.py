"""A recipe: the complete description of one edited or merged model, in about 100 bytes."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

Number: TypeAlias = float | int
ParamValue: TypeAlias = float | int | str | tuple[float, ...]
#: Sorted (name, value) pairs.
ParamPairs: TypeAlias = tuple[tuple[str, ParamValue], ...]

#: Norm -> the `alpha` that means equation 2 with this norm; the worker, which has the task vectors, computes it.
AUTO = {"l1": "auto", "l2": "auto_l2"}
#: Name of the parameter that is lambda outside the blocks; without it, lambda is alpha there.
OUTSIDE = "lambda_outside"
#: Beginnings of names of parameters: the factor of a component, and the regular expression of a user's own.
COMPONENT, PATTERN = "component.", "pattern."
#: The controls that have one constant everywhere, of a constant with factors of components.
_FLAT_CONSTANTS = ("uniform:constant", "equal_norm:constant")


def canonical_number(value: Number) -> Number:
    """Round to seven significant digits, as many as float32 holds; return whole numbers as int.

    Whole numbers below 1e15 stay exact: they are counts and seeds.

    Example:
        >>> canonical_number(0.1 + 0.2), canonical_number(1.0), canonical_number(1234567891.0)
        (0.3, 1, 1234567891)
    """
    if float(value).is_integer() and abs(value) < 1e15:
        return int(value)
    rounded = float(f"{float(value):.7g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


@dataclass(frozen=True, slots=True)
class Recipe:
    """theta = theta0 + lambda(depth) * combined; lambda(d) = alpha + beta * f(d), alpha outside blocks.

    combined = then(combine(task vectors)): the steps of `then` follow the merge, in their order.

    Build it with `Recipe.make`, whose canonical form makes recipes of the same model equal.

    Attributes:
        method: merge method by name; "zero" is theta0 itself.
        scaling: name of the function of depth, with an optional control in front: "reversed:linear" mirrors the depth,
            "uniform:linear" is the constant equal to the parameter-weighted mean of "linear".
        alpha: coefficient at depth 0, and outside the blocks unless `params` has `OUTSIDE`; "auto" or "auto_l2" is
            equation 2.
        beta: coefficient of f(depth).
        weights: one coefficient for each expert, in the run's order; () means 1 for each.
        params: the parameters of the method and of the scaling function, lambda outside the blocks, and components'
            factors and patterns.
        then: name and parameters of each step after the merge (see `followed_by`).
    """

    method: str
    scaling: str = "constant"
    alpha: Number | str = 1
    beta: Number = 0
    weights: tuple[Number, ...] = ()
    params: ParamPairs = ()
    then: tuple[tuple[str, ParamPairs], ...] = ()

    @classmethod
    def make(
        cls,
        method: str,
        scaling: str = "constant",
        alpha: Number | str = 1,
        beta: Number = 0,
        weights: tuple[Number, ...] = (),
        params: Mapping[str, ParamValue] | None = None,
    ) -> "Recipe":
        """Build a recipe in canonical form.

        Numbers have seven digits; a constant has no beta, and a beta of 0 is a constant; a sum, an average or a
        weighted sum of one expert is that expert; a constant has no other lambda outside the blocks if it is equal; a
        usual component has no factor of 1, and no component has one if all are 1.

        Example:
            >>> recipe = Recipe.make("sum", "linear", alpha=0.1 + 0.2, beta=0.7)
            >>> recipe.canonical()
            b'["sum","linear",0.3,0.7,[],{}]'
            >>> recipe == Recipe.make("sum", "linear", 0.3, 0.7)
            True
            >>> Recipe.make("average", weights=(0, 1, 0)).method
            'single'
        """
        alpha = alpha if isinstance(alpha, str) else canonical_number(alpha)
        beta = canonical_number(beta)
        named = _with_effect(dict(_canonical_params(params or {})))
        if scaling == "constant" or (beta == 0 and not scaling.endswith("piecewise")):
            flat = f"{scaling.partition(':')[0]}:constant"
            # One constant for all components is no constant lambda of each.
            scaling, beta = flat if flat in _FLAT_CONSTANTS and _has_components(named) else "constant", 0
        if scaling == "constant" and named.get(OUTSIDE) == alpha:
            del named[OUTSIDE]
        is_constant = scaling == "constant" or (beta == 0 and scaling in _FLAT_CONSTANTS)
        if method == "zero" or (is_constant and alpha == 0 and OUTSIDE not in named):
            return cls("zero", "constant", 0)
        if method in ("sum", "average", "weighted") and sorted(weights)[-2:] == [0, 1] and sum(weights) == 1:
            method = "single"
        numbers = tuple(canonical_number(w) for w in weights)
        return cls(method, scaling, alpha, beta, numbers, tuple(sorted(named.items())))

    @property
    def has_components(self) -> bool:
        """Whether components of the model have factors of their own."""
        return _has_components(dict(self.params))

    @property
    def is_expert(self) -> bool:
        """Whether the model is an unscaled expert."""
        plain = (self.method, self.scaling, self.alpha, self.then) == ("single", "constant", 1, ())
        return plain and not self.has_components and OUTSIDE not in dict(self.params)

    def followed_by(self, steps: Iterable[tuple[str, Mapping[str, ParamValue]]]) -> "Recipe":
        """Return the recipe with steps after the merge, each a name and parameters; the base itself takes none.

        Example:
            >>> Recipe.make("sum", "linear", 0.5, 1).followed_by([("norm_match", {"by": "block"})]).canonical()
            b'["sum","linear",0.5,1,[],{},[["norm_match",{"by":"block"}]]]'
        """
        then = tuple((name, _canonical_params(params)) for name, params in steps)
        return self if self.method == "zero" else replace(self, then=then)

    def to_json(self) -> list[object]:
        """Return the canonical JSON array; it has a seventh entry only if steps follow the merge."""
        then = [[[name, _plain(params)] for name, params in self.then]] if self.then else []
        return [self.method, self.scaling, self.alpha, self.beta, list(self.weights), _plain(self.params), *then]

    @classmethod
    def from_json(cls, data: list[object]) -> "Recipe":
        """Build the recipe that `to_json` wrote."""
        method, scaling, alpha, beta, weights, params, *then = data
        made = cls.make(method, scaling, alpha, beta, tuple(weights), tuples(params))  # type: ignore[arg-type]
        return made.followed_by((name, tuples(of_step)) for name, of_step in (then[0] if then else ()))  # type: ignore[attr-defined]

    def __str__(self) -> str:
        """Return the recipe in words, for errors."""
        weights = [("weights", list(self.weights))] if self.weights else []
        parts = [("method", self.method), ("scaling", self.scaling), ("alpha", self.alpha), ("beta", self.beta)]
        then = [("then", step_text(name, params)) for name, params in self.then]
        return ", ".join(f"{name} {value}" for name, value in [*parts, *weights, *self.params, *then])

    def canonical(self) -> bytes:
        """Return the canonical bytes: at most 128 for 8 experts with weights of 4 decimals and no parameters.

        Weights of 7 digits, as samplers propose, take up to 40 bytes more.
        """
        return json.dumps(self.to_json(), separators=(",", ":"), ensure_ascii=True).encode()

    def id(self, fingerprint: str) -> str:
        """Return the content id, 16 hexadecimal digits: blake2b of the bytes and the fingerprint."""
        return hashlib.blake2b(self.canonical() + fingerprint.encode(), digest_size=8).hexdigest()


def step_text(name: str, params: Iterable[tuple[str, object]]) -> str:
    """Return a step as the command line writes it.

    Example:
        >>> step_text("norm_match", [("by", "block")])
        'norm_match:by=block'
    """
    return ":".join(filter(None, (name, ",".join(f"{key}={value}" for key, value in params))))


def step_titles(names: Iterable[str]) -> list[str]:
    """Return what the searched parameters of steps are called by: the step, a second one with its number.

    Example:
        >>> step_titles(["svc", "norm_match", "svc"])
        ['svc', 'norm_match', 'svc2']
    """
    counts, titles = Counter[str](), []
    for name in names:
        counts[name] += 1
        titles.append(name if counts[name] == 1 else f"{name}{counts[name]}")
    return titles


def tuples(params: Mapping[str, object]) -> dict[str, ParamValue]:
    """Return parameters that JSON held, whose sequences are lists there."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}  # type: ignore[misc]


def _plain(params: ParamPairs) -> dict[str, object]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in params}


def _canonical_params(params: Mapping[str, ParamValue]) -> ParamPairs:
    return tuple(sorted((name, _canonical_param(value)) for name, value in params.items()))


def _has_components(params: Mapping[str, ParamValue]) -> bool:
    return any(name.startswith(COMPONENT) for name in params)


def _with_effect(params: dict[str, ParamValue]) -> dict[str, ParamValue]:
    """Leave out factors of 1; those of a user's own components stay, as they are taken out of the usual ones."""
    factors = {name: value for name, value in params.items() if name.startswith(COMPONENT)}
    if factors and all(value == 1 for value in factors.values()):
        return {name: value for name, value in params.items() if not name.startswith((COMPONENT, PATTERN))}
    own = {COMPONENT + name.removeprefix(PATTERN) for name in params if name.startswith(PATTERN)}
    idle = {name for name, value in factors.items() if value == 1} - own
    return {name: value for name, value in params.items() if name not in idle}


def _canonical_param(value: ParamValue) -> ParamValue:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return tuple(canonical_number(v) for v in value)
    return canonical_number(value)
