"""One recipe for tensors of a base and its experts, computed piece by piece."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.checkpoints.lazy import Difference, LastWide, only
from pipeline.checkpoints.pieces import Cut, cut, is_finite, outline
from pipeline.checkpoints.threads import one_thread
from pipeline.merging.chain import Chain, lazily_combined
from pipeline.merging.components import Components
from pipeline.merging.control_constants import Cell, constant_or_alpha
from pipeline.merging.methods import look_up_method
from pipeline.merging.methods.base import Entry, Experts, Method, Params, resolve_weights
from pipeline.merging.scaling import Coefficients, LayerSizes, coefficients
from pipeline.merging.steps.base import Place
from pipeline.merging.task_vectors import cell_counts, cell_norms, layer_sizes, resolve_alpha
from pipeline.parameters import resolve
from pipeline.recipe import Number, Recipe
from tasks.base import LayerMap

State = Mapping[str, Tensor]
#: Squares of smaller and larger norms leave float32.
_SMALL, _LARGE = 1e-15, 1e15
_ROW = 512


@dataclass(frozen=True, slots=True)
class Edited:
    """A piece of the result.

    Attributes:
        name: of the tensor.
        start: place of the piece's first entry in the flat tensor.
        values: flat, in the base's type.
        theta0: the base's, flat.
    """

    name: str
    start: int
    values: Tensor
    theta0: Tensor

    def differs(self) -> bool:
        """Return whether the piece is not the base's."""
        return not torch.equal(self.values, self.theta0)

    def squares(self) -> tuple[float, float]:
        """Return ||theta - theta0||^2 after the cast, and ||theta0||^2."""
        wide = self.theta0.float()
        if self.values is self.theta0:
            return 0.0, _square(wide)
        exact = self.values.dtype == torch.float64
        change = self.values - self.theta0 if exact else self.values.float() - wide
        return _square(change), _square(wide)


class Edit:
    """theta0 + lambda * combined for some tensors.

    What takes whole task vectors is computed once: what the method and the steps after it prepare, alpha of equation 2,
    the constant of equal norm. Each piece then needs the same piece of base and experts only. If the method or a step
    is not entrywise, each tensor is computed by itself: in pieces if the method can and all steps are, else as a whole.

    Attributes:
        method: of the recipe.
        weights: one for each expert.
        params: every parameter of the method.
        chain: the steps after the merge.
        layer_map: over names of tensors.
        sizes: numbers of edited parameters outside the blocks and in each block.
        alpha: the recipe's alpha as a number (equation 2 resolved), or its constant (`scaling.alpha_is_constant`).
        lambdas: the coefficient outside the blocks and of each block.
        pieces: key -> name and place of what is computed by itself: a piece of a tensor, or a tensor.
        is_cut: whether operations are on pieces, and not on whole tensors.
    """

    def __init__(
        self, base: State, experts: Sequence[State], recipe: Recipe, layer_map: LayerMap, statistics: Sequence[State]
    ) -> None:
        """Prepare.

        Args:
            base: theta0, the tensors that are edited.
            experts: with all names of `base`, in the same shapes.
            recipe: of the result.
            layer_map: over names of tensors.
            statistics: one for each expert, if the recipe's method needs any.

        Raises:
            ValueError: if the recipe does not fit the experts, or equation 2 or the constant is not defined.
        """
        self.method: Method = look_up_method(recipe.method, "method")
        self.weights: tuple[Number, ...] = resolve_weights(recipe.weights, len(experts))
        self.params: Params = resolve(self.method.parameters, dict(recipe.params))
        self.method.check(self.weights, self.params)
        self.chain = Chain.of(recipe)
        self.layer_map, outlines = layer_map, outline(base)
        self.sizes: LayerSizes = layer_sizes(layer_map, outlines)
        self.is_entrywise = self.method.entrywise(self.params) and self.chain.is_entrywise
        self.pieces = cut(outlines) if self.is_entrywise else {n: (n, slice(0, t.numel())) for n, t in outlines.items()}
        in_pieces = self.chain.is_entrywise and not self.is_entrywise
        self._by_parameter = self.method.by_parameter(self.params) if in_pieces else None
        self.is_cut = self.is_entrywise or self._by_parameter is not None
        self._outlines = outlines
        # A result that is finite then says that all that it was computed of is: one check in place of several.
        self._reads_checked = not (self.method.propagates and self.is_cut and not self.chain.steps)
        self._base, self._states = self._parts(base), [self._parts(state) for state in experts]
        self._statistics = statistics
        self._deltas = [Difference(self._base, state) for state in self._states]
        self._experts = Experts(self._deltas, self._base, statistics)
        self._alphas = dict[str, float]()
        with one_thread(self.is_cut):
            entry = self.method.prepare(self._experts, self.weights, self.params)
            self._following = self.chain.follow(entry, self._experts, self.weights, self._place)
            self._entry = self._following.after(entry, self._place)
            alpha = self._alpha(recipe)
        self.alpha = float(alpha)
        self.lambdas: Coefficients = coefficients(recipe, self.sizes, alpha)
        Components.of(dict(recipe.params)).check(self.sizes.names)

    def resolve_alpha(self, word: str) -> float:
        """Compute equation 2 (see `task_vectors.resolve_alpha`), once for each word."""
        if word not in self._alphas:
            used = [delta for delta, weight in zip(self._deltas, self.weights, strict=True) if weight]
            with one_thread(self.is_cut):
                self._alphas[word] = resolve_alpha(word, used, lazily_combined(self._experts, self._entry))
        return self._alphas[word]

    def compute(self, key: str) -> Iterator[Edited]:
        """Compute what has a key in `pieces`, and yield it piece by piece.

        Raises:
            ValueError: if it is not finite.
        """
        name, place = self.pieces[key]
        if self._by_parameter is None:
            yield self._edited(self._base, self._states, self._entry, key, name, place.start)
            return
        places = cut({name: self._outlines[name]})
        base, *states = (Cut(state, places, self._reads_checked) for state in (self._base, *self._states))
        if self._coefficient(name) == 0:
            for piece, (_, part) in places.items():
                yield self._unchanged(name, part.start, base[piece])
            return
        wide = LastWide(base)
        experts = Experts([Difference(wide, state) for state in states], wide)
        where = self._place(name)
        entry = self._following.after(self._by_parameter(name, experts, self.weights, self.params), lambda _: where)
        for piece, (_, part) in places.items():
            yield self._edited(base, states, entry, piece, name, part.start)

    def _edited(self, base: State, experts: Sequence[State], entry: Entry, key: str, name: str, start: int) -> Edited:
        theta0, coefficient = base[key], self._coefficient(name)
        if coefficient == 0:
            return self._unchanged(name, start, theta0)
        wide = theta0.float()
        bases = {key: wide}
        deltas = [Difference(bases, expert) for expert in experts]
        # Computed in the memory of the combined vector, which nothing else uses.
        combined = entry(Experts(deltas, bases, self._statistics), key)
        scaled = combined if coefficient == 1 else combined.mul_(coefficient)
        theta = scaled.add_(wide).to(theta0.dtype)
        self._check_finite(name, theta)
        return Edited(name, start, theta.reshape(-1), theta0.reshape(-1))

    def _unchanged(self, name: str, start: int, theta0: Tensor) -> Edited:
        if not self._reads_checked:
            self._check_finite(name, theta0)
        flat = theta0.reshape(-1)
        return Edited(name, start, flat, flat)

    def _check_finite(self, name: str, theta: Tensor) -> None:
        if not is_finite(theta):
            coefficient = self._coefficient(name)
            raise ValueError(f"{name}: NaN or infinite after the merge in {theta.dtype}, coefficient {coefficient:g}")

    def _coefficient(self, name: str) -> float:
        return self.lambdas.of(self.layer_map.blocks.get(name), name)

    def _alpha(self, recipe: Recipe) -> float:
        alpha = self.resolve_alpha(recipe.alpha) if isinstance(recipe.alpha, str) else recipe.alpha
        counts = partial(cell_counts, self.layer_map, self.sizes.names)
        return constant_or_alpha(recipe, self.sizes, alpha, counts, self._norms)

    def _norms(self, components: Components) -> Mapping[Cell, float]:
        combined = lazily_combined(self._experts, self._entry)
        return cell_norms(self.layer_map, combined, components, lambda key: self.pieces[key][0])

    def _place(self, key: str) -> Place:
        name, _ = self.pieces[key]
        return Place(name, self.layer_map.blocks.get(name))

    def _parts(self, state: State) -> State:
        return Cut(state, self.pieces, self._reads_checked) if self.is_entrywise else only(state, list(self.pieces))


def _square(tensor: Tensor) -> float:
    """Return ||tensor||^2 to nine digits: rows in float32, whose sum is taken in float64.

    All in float64 takes ten times as long, and is used where float32 would not hold the squares.
    """
    flat = tensor.reshape(-1)
    whole = flat.numel() // _ROW * _ROW
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, _ROW), dim=1)
    norm = math.hypot(float(torch.linalg.vector_norm(rows, dtype=torch.float64)), float(flat[whole:].double().norm()))
    if not _SMALL < norm < _LARGE:
        norm = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
    return norm**2
