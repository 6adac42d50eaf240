"""A recipe: the complete description of one edited or merged model, in about 100 bytes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Number: TypeAlias = float | int
ParamValue: TypeAlias = float | int | str | tuple[float, ...]

#: Norm -> the `alpha` that means equation 2 with this norm; the worker, which has the task vectors, computes it.
AUTO = {"l1": "auto", "l2": "auto_l2"}
#: Name of the parameter that is lambda outside the blocks; without it, lambda is alpha there.
OUTSIDE = "lambda_outside"


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
    """theta = theta0 + lambda(depth) * combine(task vectors); lambda(d) = alpha + beta * f(d), alpha outside blocks.

    Build it with `Recipe.make`, whose canonical form makes recipes of the same model equal.

    Attributes:
        method: merge method by name; "zero" is theta0 itself.
        scaling: name of the function of depth, with an optional control in front: "reversed:linear" mirrors the depth,
            "uniform:linear" is the constant equal to the parameter-weighted mean of "linear".
        alpha: coefficient at depth 0, and outside the blocks unless `params` has `OUTSIDE`; "auto" or "auto_l2" is
            equation 2.
        beta: coefficient of f(depth).
        weights: one coefficient for each expert, in the run's order; () means 1 for each.
        params: sorted (name, value) pairs: the parameters of the method and of the scaling function.
    """

    method: str
    scaling: str = "constant"
    alpha: Number | str = 1
    beta: Number = 0
    weights: tuple[Number, ...] = ()
    params: tuple[tuple[str, ParamValue], ...] = ()

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
        weighted sum of one expert is that expert; a constant has no other lambda outside the blocks if it is equal.

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
        if scaling == "constant" or (beta == 0 and not scaling.endswith("piecewise")):
            scaling, beta = "constant", 0
        named = {k: _canonical_param(v) for k, v in (params or {}).items()}
        if scaling == "constant" and named.get(OUTSIDE) == alpha:
            del named[OUTSIDE]
        if method == "zero" or (scaling == "constant" and alpha == 0 and OUTSIDE not in named):
            return cls("zero", "constant", 0)
        if method in ("sum", "average", "weighted") and sorted(weights)[-2:] == [0, 1] and sum(weights) == 1:
            method = "single"
        numbers = tuple(canonical_number(w) for w in weights)
        return cls(method, scaling, alpha, beta, numbers, tuple(sorted(named.items())))

    def to_json(self) -> list[object]:
        """Return the canonical JSON array."""
        params = {k: list(v) if isinstance(v, tuple) else v for k, v in self.params}
        return [self.method, self.scaling, self.alpha, self.beta, list(self.weights), params]

    @classmethod
    def from_json(cls, data: list[object]) -> "Recipe":
        """Build the recipe that `to_json` wrote."""
        method, scaling, alpha, beta, weights, params = data
        items = {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}  # type: ignore[attr-defined]
        return cls.make(method, scaling, alpha, beta, tuple(weights), items)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return the recipe in words, for errors."""
        weights = [("weights", list(self.weights))] if self.weights else []
        parts = [("method", self.method), ("scaling", self.scaling), ("alpha", self.alpha), ("beta", self.beta)]
        return ", ".join(f"{name} {value}" for name, value in [*parts, *weights, *self.params])

    def canonical(self) -> bytes:
        """Return the canonical bytes: at most 128 for 8 experts with weights of 4 decimals and no parameters.

        Weights of 7 digits, as samplers propose, take up to 40 bytes more.
        """
        return json.dumps(self.to_json(), separators=(",", ":"), ensure_ascii=True).encode()

    def id(self, fingerprint: str) -> str:
        """Return the content id, 16 hexadecimal digits: blake2b of the bytes and the fingerprint."""
        return hashlib.blake2b(self.canonical() + fingerprint.encode(), digest_size=8).hexdigest()


def _canonical_param(value: ParamValue) -> ParamValue:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return tuple(canonical_number(v) for v in value)
    return canonical_number(value)
