"""Merge whole state dicts of any architecture into one, for `lines merge`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.checkpoints.batch_statistics import Reach, average, shares_and_unit, statistics_of
from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.lazy import Difference
from pipeline.merging.methods import look_up_method
from pipeline.merging.methods.base import Experts, resolve_weights
from pipeline.merging.scaling import Coefficients, LayerSizes, coefficients, equal_norm, is_equal_norm
from pipeline.merging.task_vectors import NamedTensors, check_agree, group_norms, layer_sizes, norm, resolve_alpha
from pipeline.parameters import resolve
from pipeline.recipe import AUTO, Recipe
from tasks.base import LayerMap
from tasks.batch_norm import is_statistic


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged model.

    Attributes:
        state: tensors by name, in the base's types; those that are not edited are the base's.
        alpha: the recipe's alpha as a number (equation 2 resolved); with an "equal_norm:" scaling, its constant.
        lambdas: the coefficient outside the blocks and of each block.
        sizes: numbers of edited parameters outside the blocks and in each block.
        change: ||theta - theta0|| (L2) over the edited tensors, after the cast.
        base_norm: ||theta0|| over the same tensors.
        averaged: names of statistics of batches, which are averaged (see `batch_statistics.average`).
    """

    state: dict[str, Tensor]
    alpha: float
    lambdas: Coefficients
    sizes: LayerSizes
    change: float
    base_norm: float
    averaged: tuple[str, ...] = ()


def edited_names(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that a merge edits: all of floating point but statistics of batches."""
    return [name for name, tensor in state.items() if tensor.is_floating_point() and not is_statistic(name)]


def merge_states(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    recipe: Recipe,
    layer_map: LayerMap,
    statistics: Sequence[Mapping[str, Tensor]] = (),
) -> Merged:
    """Compute theta0 + lambda * combined for every edited tensor, and average statistics; the rest are the base's.

    Combines in float32 and casts once to each base tensor's type: the same bits as `resident.ResidentModel`. Task
    vectors are computed tensor by tensor, so that only the result and a few tensors are in memory, besides the base and
    the experts (docs/reference/methods.md lists what each method adds).

    Args:
        base: theta0; each tensor under one name (see `tied.count_once`).
        experts: with the same names and shapes.
        recipe: of the merged model.
        layer_map: over the names of the edited tensors and of statistics of batches.
        statistics: one for each expert, if the recipe's method needs any (`statistics.open_statistics`).

    Raises:
        ValueError: if names or shapes differ, the recipe does not fit, or the result is not finite, or equals the base
            although the recipe should change it.

    Example:
        >>> base = read_checkpoint("base.safetensors")
        >>> experts = [open_checkpoint("a.safetensors"), open_checkpoint("b.safetensors")]
        >>> layer_map, _ = detect(edited_names(base.state))
        >>> merged = merge_states(base, experts, Recipe.make("ties", "linear", "auto", 0.5), layer_map)
        >>> write_safetensors(Path("merged.safetensors"), merged.state, {})
    """
    for expert in experts:
        check_agree(NamedTensors(base.source, base.state), NamedTensors(expert.source, expert.state))
    theta0 = {name: base.state[name] for name in edited_names(base.state)}
    method = look_up_method(recipe.method, "method")
    weights = resolve_weights(recipe.weights, len(experts))
    params = resolve(method.parameters, dict(recipe.params))
    method.check(weights, params)
    deltas = [Difference(theta0, expert.state) for expert in experts]
    combined = method.combine(Experts(deltas, theta0, statistics), weights, params)
    sizes = layer_sizes(layer_map, theta0)
    alpha, used = recipe.alpha, [d for d, w in zip(deltas, weights, strict=True) if w]
    if isinstance(alpha, str):
        alpha = resolve_alpha(alpha, used, combined)
    if is_equal_norm(recipe):
        alpha = equal_norm(recipe, sizes, alpha, group_norms(layer_map, combined))
    lambdas = coefficients(recipe, sizes, alpha)
    averaged = dict[str, Tensor]()
    if statistics_of(base.state):
        how = shares_and_unit(method, weights, params, lambda: resolve_alpha(AUTO["l1"], used, combined))
        averaged = average(base, experts, Reach(*how, lambdas, layer_map))
    state = dict(base.state) | averaged
    for name, theta in theta0.items():
        state[name] = _edited(name, theta, combined[name], lambdas.of(layer_map.blocks.get(name)))
    change = norm(state[name].double() - tensor.double() for name, tensor in theta0.items())
    if change == 0 and recipe.method != "zero":
        raise ValueError(
            f"the merged weights equal the base's: the recipe ({recipe}) does nothing to them in the base's types"
        )
    return Merged(state, float(alpha), lambdas, sizes, change, norm(theta0.values()), tuple(averaged))


def _edited(name: str, theta0: Tensor, delta: Tensor, coefficient: float) -> Tensor:
    """Compute in the memory of `delta`, which nothing else uses: the result needs no other float32 tensor."""
    if coefficient == 0:
        return theta0
    theta = delta.mul_(coefficient).add_(theta0.float()).to(theta0.dtype)
    if not bool(theta.isfinite().all()):
        raise ValueError(f"{name}: NaN or infinite after the merge in {theta.dtype}, coefficient {coefficient:g}")
    return theta
