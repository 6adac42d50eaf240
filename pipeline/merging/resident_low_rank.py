"""A model whose task vectors stay low-rank: a candidate changes the scales of factors, and never the weights.

y = W x + c B (A x), with c = lambda(depth) and A, B the factors of the used experts side by side, each with its share
(equation 4: the shares are lambda and 1 - lambda). Only the base, in its own precision, and the factors are in memory,
and a candidate is ready as soon as B is multiplied: 7B weights are neither copied nor rewritten.

Shape legend: N tokens, I inputs, O outputs, R the ranks of all used experts together.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.merging.combined import Combined, CombinedCache
from pipeline.merging.flat import fingerprint
from pipeline.merging.low_rank import LowRank, LowRankDelta, low_rank_sum
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Params
from pipeline.merging.resident import Materialised
from pipeline.merging.task_vectors import layer_sizes
from pipeline.recipe import Number, Recipe
from tasks.base import LayerMap, NonFiniteError

#: Combined vectors kept: along lambda each serves the plain soup, LiNeS and its controls.
COMBINED_KEPT = 4
_WEIGHT = ".weight"


class _AdapterHook:
    """Adds the product with the factors to the output of one linear module; without factors it adds nothing."""

    def __init__(self, module: nn.Module) -> None:
        # transformers' Conv1D, of GPT-2, keeps its weight as (inputs, outputs): B A is then what acts on rows.
        self._by_rows = not isinstance(module, nn.Linear)
        self.factors: tuple[Tensor, Tensor] | None = None
        module.register_forward_hook(self._add)

    def set(self, factor: LowRank, dtype: torch.dtype) -> Tensor:
        """Take (down (I, R), up (R, O)), scaled in float32 and cast once; return the one that holds the scales."""
        down, up = (factor.b, factor.a) if self._by_rows else (factor.a.t(), factor.b.t())
        # Laid out as they are multiplied: for 16 tokens and width 576, products with views took 13 us, with copies 9.
        self.factors = down.to(dtype).contiguous(), up.to(dtype).contiguous()
        return self.factors[0 if self._by_rows else 1]

    def clear(self) -> None:
        """Remove the factors, so that the module computes as in the base."""
        self.factors = None

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self.factors is None:
            return
        down_IR, up_RO = self.factors
        hidden_NR = inputs[0].reshape(-1, down_IR.shape[0]) @ down_IR
        output.view(-1, up_RO.shape[1]).addmm_(hidden_NR, up_RO)


def can_stay_low_rank(module: nn.Module, deltas: Sequence[Mapping[str, Tensor]]) -> bool:
    """Whether `AdaptedModel` can hold the experts of sums: all low-rank, and of linear modules."""
    low = [delta for delta in deltas if isinstance(delta, LowRankDelta)]
    return len(low) == len(deltas) and all(_is_linear(module, name) for delta in low for name in delta.factors)


def _is_linear(module: nn.Module, parameter: str) -> bool:
    owner = module.get_submodule(parameter.rpartition(".")[0])
    return parameter.endswith(_WEIGHT) and (isinstance(owner, nn.Linear) or type(owner).__name__ == "Conv1D")


class Candidates:
    """Computes the factors of any candidate: those of the used experts side by side, scaled by lambda(depth).

    Attributes:
        sizes: numbers of edited parameters (those with factors) outside the blocks and in each block.
        experts: names, in the order of a recipe's weights.
        deltas: the experts' task vectors, on the device.
        names: the parameters with factors, by depth.
    """

    def __init__(
        self, module: nn.Module, layer_map: LayerMap, deltas: Mapping[str, LowRankDelta], device: torch.device
    ) -> None:
        """Take the experts' factors to `device`, in float32.

        Args:
            module: whose parameters the experts change.
            layer_map: over the names of `module.named_parameters()`.
            deltas: expert name -> task vector, in the order of a recipe's weights; see `can_stay_low_rank`.
            device: of the factors.
        """
        self._layer_map = layer_map
        self.experts = tuple(deltas)
        self.deltas = tuple(delta.to(device) for delta in deltas.values())
        parameters = dict(module.named_parameters())
        changed = {name for delta in self.deltas for name in delta.factors}
        self.names = [name for name in parameters if name in changed]
        self.sizes = layer_sizes(layer_map, {name: parameters[name] for name in self.names})
        self._combined = CombinedCache(COMBINED_KEPT, self._combine)

    @torch.no_grad()
    def factors(self, recipe: Recipe) -> tuple[float, dict[str, LowRank]]:
        """Compute the recipe's alpha as a number, and the factors of each parameter with all scales in b.

        Raises:
            NonFiniteError: if a factor or a coefficient is NaN or infinite.
            ValueError: if a function is unknown, weights do not fit, or equation 2 is undefined; or if the recipe
                should change the model, but does not.
        """
        if recipe.method == "zero":
            return 0.0, {}
        combined = self._combined.get(recipe, len(self.deltas))
        assert isinstance(combined.vector, LowRankDelta)
        alpha, lambdas = combined.lambdas(recipe, self.deltas, self._layer_map, self.sizes)
        scales = {name: lambdas.of(self._layer_map.blocks.get(name), name) for name in combined.vector.factors}
        found = {name: LowRank(f.b * scales[name], f.a) for name, f in combined.vector.factors.items()}
        if not all(bool(side.isfinite().all()) for factor in found.values() for side in (factor.a, factor.b)):
            raise NonFiniteError(f"non-finite factors: {recipe}")
        asked = any(scales.values()) and any(recipe.weights or (1,))
        if asked and not any(bool(f.b.any()) and bool(f.a.any()) for f in found.values()):
            raise ValueError(f"the scaled factors are 0 everywhere: {recipe} does nothing: are the experts copies?")
        return alpha, found

    def _combine(self, recipe: Recipe, weights: tuple[Number, ...], params: Params) -> Combined:
        shares = METHODS[recipe.method].shares
        assert shares is not None, "checked by its callers"
        return Combined(low_rank_sum(self.deltas, shares(weights, params)))


class AdaptedModel:
    """Adds factors to a module's linear layers, and sets their scales; each candidate depends on its recipe alone.

    Attributes:
        candidates: of the experts.
        hooks: parameter -> the hook that holds its factors.
    """

    def __init__(self, module: nn.Module, candidates: Candidates, dtype: torch.dtype) -> None:
        """Prepare a module, which computes as in the base until a recipe is set.

        Args:
            module: holds theta0 on its device in `dtype`; its weights stay as they are.
            candidates: of the experts, on the same device.
            dtype: of the factors in the forward pass.
        """
        self.candidates, self._dtype = candidates, dtype
        module.requires_grad_(False)
        self.hooks = {name: _AdapterHook(module.get_submodule(name.rpartition(".")[0])) for name in candidates.names}

    def materialise(self, recipe: Recipe) -> Materialised:
        """Set the scales by a recipe.

        Raises:
            ValueError: see `Candidates.factors`.
        """
        for hook in self.hooks.values():
            hook.clear()
        alpha, factors = self.candidates.factors(recipe)
        if not factors:
            return Materialised(alpha, "0" * 16)
        up = [self.hooks[name].set(factor, self._dtype).reshape(-1) for name, factor in factors.items()]
        return Materialised(alpha, fingerprint(torch.cat(up)))
