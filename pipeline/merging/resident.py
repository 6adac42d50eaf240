"""A model whose weights are rebuilt in place for each recipe, with the base and all task vectors resident.

theta = theta0 + lambda(depth) * combined, in float32, cast once to the model's dtype, and always from theta0: so a -> b
-> a gives the same bits. The product and the sum are rounded separately, as in the authors' code: a fused multiply-add
would be 1.4 times faster on a CPU, but rounds differently, and not the same on every device.

Low-rank task vectors are kept as factors, and so are their sums if no step follows: each rebuild multiplies them, one
parameter at a time, into the weights.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from pipeline.merging.chain import Chain, by_name
from pipeline.merging.combined import Combined, CombinedCache
from pipeline.merging.flat import Arena, DeviceVector, Flat, Part, fingerprint
from pipeline.merging.low_rank import LowRankDelta, combine_low_rank
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts, Params
from pipeline.merging.task_vectors import NamedTensors, check_agree, layer_sizes
from pipeline.recipe import Number, Recipe
from tasks.base import LayerMap, NonFiniteError

#: Combined vectors kept, none larger than the model: one for the current merge, one for its neighbour in the queue.
COMBINED_KEPT = 2

#: `Materialised.outside` and `start` of the base.
_THETA0 = "theta0"

#: (method, theta0 and task vectors, one weight for each, every declared parameter) -> `Experts.statistics`.
Gather: TypeAlias = Callable[[str, Experts, Sequence[Number], Params], Sequence[Mapping[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class Materialised:
    """The result of a rebuild.

    Attributes:
        alpha: the recipe's alpha as a number (equation 2 resolved), or its constant (`scaling.alpha_is_constant`).
        fingerprint: sampled checksum of the weights now in the module, 16 hexadecimal digits.
        outside: identity of the weights outside the blocks: equal ones mean the same bits, for one `ResidentModel`.
            None if it is not known.
        start: the same of the weights outside the blocks and in the first one: all that act before the second block.
    """

    alpha: float
    fingerprint: str
    outside: Hashable | None = None
    start: Hashable | None = None


class ResidentModel:
    """Owns the weights of a module: its parameters become views of one flat tensor, rewritten by `materialise`.

    Attributes:
        sizes: numbers of edited parameters outside the blocks and in each block.
        experts: names, in the order of a recipe's weights.
        base: theta0 by parameter name, float32 on the device; must not be written to.
        deltas: the experts' task vectors in the same form; an entry of a low-rank one becomes dense when it is read.

    Example:
        >>> model = ResidentModel(module, layer_map, theta0, {"a": tau_a, "b": tau_b}, device, torch.float32)
        >>> model.materialise(Recipe.make("sum", "linear", "auto", 1.0)).alpha
        0.5
    """

    def __init__(
        self,
        module: nn.Module,
        layer_map: LayerMap,
        base: Mapping[str, Tensor],
        deltas: Mapping[str, Mapping[str, Tensor]],
        device: torch.device,
        dtype: torch.dtype,
        gather: Gather | None = None,
    ) -> None:
        """Put everything on `device`; the module then holds theta0.

        Args:
            module: whose parameters are edited and lose their gradients; its buffers stay. Tied parameters count once.
            layer_map: over the names of `module.named_parameters()`.
            base: theta0 by the same names.
            deltas: expert name -> task vector (see `task_vectors.task_vector`), in the order of a recipe's weights; a
                `LowRankDelta` is kept as its factors.
            device: of the weights.
            dtype: of the module's weights; theta0 and task vectors are kept in float32.
            gather: for methods with `needs`; it may overwrite the module's weights.

        Raises:
            ValueError: if names or shapes differ between module, base, layer map and task vectors.
        """
        module.to(device=device, dtype=dtype).requires_grad_(False)
        parameters = dict(module.named_parameters())
        check_agree(NamedTensors("the module", parameters), NamedTensors("the base", base))
        self.sizes = layer_sizes(layer_map, parameters)
        self.experts = tuple(deltas)
        self._layer_map, self._device, self._gather = layer_map, device, gather
        self._arena = Arena.plan({name: p.shape for name, p in parameters.items()}, layer_map)
        held = self._arena.hold(base, device)
        assert isinstance(held, Flat)
        self.base = held
        self._base = self.base.whole
        self._base_peaks = self._arena.peaks(self.base)
        self._weights = self._base.to(dtype, copy=True)
        for name, delta in deltas.items():
            check_agree(NamedTensors("the base", base), NamedTensors(f"task vector of {name}", delta))
        self.deltas = tuple(self._arena.hold(delta, device) for delta in deltas.values())
        self._scratch = torch.empty(0, device=device)
        self._combined = CombinedCache(COMBINED_KEPT, self._combine)
        for name, view in self._arena.views(self._weights).items():
            parameters[name].data = view
        self.base_fingerprint = fingerprint(self._weights)

    @torch.no_grad()
    def materialise(self, recipe: Recipe) -> Materialised:
        """Rebuild the module's weights by a recipe.

        Raises:
            NonFiniteError: if the combined vector, a coefficient or a weight is NaN or infinite.
            ValueError: if a method or function is unknown, weights do not fit, or equation 2 is undefined; or if the
                weights equal theta0 although the recipe should change them: a merge that silently does nothing.
        """
        if recipe.method == "zero":
            self._weights.copy_(self._base)
            return Materialised(0.0, self.base_fingerprint, _THETA0, _THETA0)
        combined = self._combined.get(recipe, len(self.deltas))
        alpha, lambdas = combined.lambdas(recipe, self.deltas, self._layer_map, self.sizes)
        parts = self._arena.parts(lambdas)
        for part in parts:
            self._rebuild(part, combined.vector)
        self._check_finite(recipe, parts, combined)
        outside, start = (_identity(recipe, combined, [p for p in parts if p.group < groups]) for groups in (1, 2))
        return Materialised(alpha, self._changed_fingerprint(recipe, parts, combined), outside, start)

    def _rebuild(self, part: Part, combined: DeviceVector) -> None:
        place, coefficient = part.place, part.coefficient
        if coefficient == 0 or isinstance(combined, LowRankDelta):
            self._weights[place].copy_(self._base[place])
        if coefficient == 0:
            return
        if isinstance(combined, Flat):
            self._edit(place, coefficient, combined.whole[place])
            return
        for name in part.members:
            if factor := combined.factors.get(name):
                place = self._arena.span(name)
                product = self._work(place)
                factor.dense(out=product.view(factor.shape))
                self._edit(place, coefficient, product)

    def _edit(self, place: slice, coefficient: float, combined: Tensor) -> None:
        """Rewrite the weights of `place`; `combined` may share memory with `_work(place)`."""
        work = self._work(place)
        torch.mul(combined, coefficient, out=work)
        work.add_(self._base[place])
        if self._weights.dtype != torch.float32:
            self._weights[place].copy_(work)

    def _work(self, place: slice) -> Tensor:
        """Float32 memory to compute `place` in: the weights themselves, or scratch if they are less precise."""
        if self._weights.dtype == torch.float32:
            return self._weights[place]
        size = place.stop - place.start
        if self._scratch.numel() < size:
            self._scratch = torch.empty(size, device=self._device)
        return self._scratch[:size]

    def _combine(self, recipe: Recipe, weights: tuple[Number, ...], params: Params) -> Combined:
        method, chain = METHODS[recipe.method], Chain.of(recipe)
        vector: Mapping[str, Tensor] | None = None
        if not chain.steps:
            vector = combine_low_rank(method, self.deltas, weights, params)
        if vector is None:
            experts, place = self._inputs(recipe, weights, params), by_name(self._layer_map.blocks)
            vector = chain.change(method.combine(experts, weights, params), experts, weights, place)
        held = self._arena.hold(vector, self._device)
        peaks = self._arena.peaks(held)
        if not all(map(math.isfinite, peaks)):
            raise NonFiniteError(f"non-finite task vector: method {recipe.method} with weights {list(recipe.weights)}")
        return Combined(held, peaks)

    def _inputs(self, recipe: Recipe, weights: tuple[Number, ...], params: Params) -> Experts:
        """Base and task vectors, with the statistics that the method needs."""
        experts = Experts(self.deltas, self.base)
        if not METHODS[recipe.method].needs:
            return experts
        if self._gather is None:
            raise ValueError(f"method {recipe.method}: learns from data, which only the workers of `lines run` hold")
        return replace(experts, statistics=self._gather(recipe.method, experts, weights, params))

    def _check_finite(self, recipe: Recipe, parts: Sequence[Part], combined: Combined) -> None:
        """Check by the bound |theta0| + |lambda| |combined|, which costs nothing; read the weights only above it."""
        limit = 0.99 * torch.finfo(self._weights.dtype).max
        for part in parts:
            bound = self._base_peaks[part.group] + abs(part.coefficient) * combined.peaks[part.group]
            if bound < limit or bool(self._weights[part.place].isfinite().all()):
                continue
            raise NonFiniteError(f"non-finite weights in {self._weights.dtype}: {recipe}, lambda {part.coefficient:g}")

    def _changed_fingerprint(self, recipe: Recipe, parts: Sequence[Part], combined: Combined) -> str:
        """Return the fingerprint of the weights, which must differ from theta0's unless `recipe` asks for theta0."""
        now = fingerprint(self._weights)
        asked = any(part.coefficient for part in parts) and (not recipe.weights or any(recipe.weights))
        if now != self.base_fingerprint or not asked:
            return now
        if torch.equal(self._weights, self._base.to(self._weights.dtype)):
            self._explain_no_change(recipe, parts, combined)
        return now

    def _explain_no_change(self, recipe: Recipe, parts: Sequence[Part], combined: Combined) -> None:
        used = any(bool(combined.vector[name].any()) for part in parts if part.coefficient for name in part.members)
        if any(combined.peaks) and not used:
            return  # The experts differ from the base only in parts whose coefficient is 0.
        why = (
            f"its changes are below the resolution of {self._weights.dtype}"
            if used
            else "the combined task vector is 0 everywhere: are the experts copies of the base?"
        )
        raise ValueError(f"the rebuilt weights equal the base's: {recipe} does nothing, as {why}")


def _identity(recipe: Recipe, combined: Combined, parts: Sequence[Part]) -> Hashable | None:
    """Return what the weights of the first groups depend on: alpha is not part of it, as their coefficients are."""
    if not any(part.coefficient for part in parts):
        return _THETA0
    return None if METHODS[recipe.method].needs else (combined.key, *((p.place.start, p.coefficient) for p in parts))
