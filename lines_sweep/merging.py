"""Merge and edit models in memory: what `lines merge` does, for state dicts, modules and files."""

import logging
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from lines_sweep.arguments import named_arguments
from pipeline.checkpoints.checkpoint import Checkpoint, checked, plain_numbers
from pipeline.checkpoints.first_read import CheckedWhenRead
from pipeline.checkpoints.lazy import open_checkpoint, open_unchecked
from pipeline.checkpoints.merge import Tensors
from pipeline.checkpoints.pieces import outline
from pipeline.checkpoints.prepared_merge import MergeSources, check_recipe, prepare_merge
from pipeline.checkpoints.threads import single_threads
from pipeline.merging.components import component_params
from pipeline.merging.methods import look_up_method
from pipeline.recipe import AUTO, ParamValue, Recipe

#: A model: its state dict, a module, or the place of its files as `lines merge` takes it.
Model: TypeAlias = Mapping[str, Tensor] | nn.Module | str | Path
_log = logging.getLogger(__name__)
#: Option of `lines merge` -> argument.
_ARGUMENTS = {name: name for name in ("alpha", "beta", "blocks", "exclude", "method", "scaling", "statistics", "then")}
_ARGUMENTS |= {
    "component": "components",
    "pattern": "patterns",
    "expert": "experts",
    "param": "params",
    "weight": "weights",
}


@named_arguments(_ARGUMENTS)
def merge(
    base: Model,
    experts: Sequence[Model] | Mapping[str, Model],
    *,
    method: str = "sum",
    scaling: str = "linear",
    alpha: float | str | None = None,
    beta: float = 0.0,
    weights: Sequence[float] = (),
    params: Mapping[str, ParamValue] | None = None,
    components: Mapping[str, float] | None = None,
    patterns: Mapping[str, str] | None = None,
    then: Sequence[str | tuple[str, Mapping[str, ParamValue]]] = (),
    statistics: Sequence[str | Path] = (),
    blocks: str | None = None,
    exclude: str | None = None,
) -> dict[str, Tensor]:
    r"""Merge fine-tuned models: base + lambda(depth) * combine(experts - base), lambda = alpha + beta * scaling(depth).

    Combines in float32 and casts once, to the same bits as `lines merge`. Inputs are not changed. What became of each
    tensor is logged as information under "lines_sweep".

    Args:
        base: the pre-trained model.
        experts: fine-tuned models of the same architecture, or by name.
        method: docs/reference/methods.md has all.
        scaling: the function of depth, from 0 at the first block to 1 at the last: constant, linear, sqrt, quadratic,
            power, cosine, piecewise, grouped.
        alpha: lambda at the first block and outside the blocks; "auto" is equation 2 of the paper, "auto_l2" with L2
            norms. By default 1 for methods of whole models such as slerp, else "auto".
        beta: what lambda grows by up to the last block.
        weights: one for each expert, for the method "weighted".
        params: parameters of the method and of the scaling.
        components: factors of lambda for parts of the model: attention, ssm, mlp, norms, embeddings, heads, or those of
            `patterns`. All other parameters have 1.
        patterns: components of your own: name -> regular expression, found anywhere in the names of its parameters.
        then: steps after the merge, in order: names, or names with parameters as in ("norm_match", {"by": "block"});
            docs/reference/chains.md has all.
        statistics: for fisher and regmean, a file of `lines statistics` for each expert.
        blocks: a regular expression that matches the start of a block's names; its group is the block's number. By
            default the architecture is recognised.
        exclude: a regular expression, found anywhere in the names of tensors that stay the base's.

    Returns:
        A new state dict with the base's names and types.

    Raises:
        ValueError: if the models do not fit each other, the recipe does not fit them, the blocks are not recognised, or
            the result equals the base or is not finite.

    Example:
        >>> import torch
        >>> base = {f"blocks.{i}.weight": torch.zeros(2) for i in range(3)}
        >>> expert = {name: tensor + 1 for name, tensor in base.items()}
        >>> merged = merge(base, [expert], alpha=0.5, beta=0.5, blocks=r"blocks\.(\d+)\.")
        >>> [float(tensor[0]) for tensor in merged.values()]
        [0.5, 0.75, 1.0]
    """
    found = look_up_method(method, "method")
    start = (1.0 if found.whole else AUTO["l1"]) if alpha is None else alpha
    given = {**(params or {}), **component_params(components or {}, patterns or {})}
    steps = ((step, {}) if isinstance(step, str) else step for step in then)
    recipe = Recipe.make(method, scaling, start, beta, tuple(weights), given).followed_by(steps)
    models = list(experts.values()) if isinstance(experts, Mapping) else list(experts)
    names = list(experts) if isinstance(experts, Mapping) else [f"experts[{i}]" for i in range(len(models))]
    sources = MergeSources("base", names, [str(path) for path in statistics], blocks, exclude)
    check_recipe(recipe, sources)
    # Fingerprints are compared with those of statistics alone.
    hashed = repeat(bool(statistics))
    with single_threads() as pool:
        first, *others = pool.map(_opened, ["base", *names], [base, *models], hashed)
    stored = [opened.state for opened in (first, *others) if isinstance(opened.state, CheckedWhenRead)]
    try:
        prepared = prepare_merge(first, others, recipe, sources)
        state = Tensors(outline(prepared.merge.base))
        prepared.merge.fill(state)
    except ValueError:
        for model in stored:
            model.check_taken()  # an input that is not finite is the cause, and gives the better error
        raise
    for model in stored:
        model.finish()
    for line in (*prepared.notes, *map(str, prepared.coverage)):
        _log.info("%s", line)
    return dict(state) | {other: state[name] for other, name in prepared.tied.items()}


def edit(
    base: Model,
    expert: Model,
    *,
    alpha: float,
    beta: float | None = None,
    scaling: str = "linear",
    params: Mapping[str, ParamValue] | None = None,
    blocks: str | None = None,
    exclude: str | None = None,
) -> dict[str, Tensor]:
    """Edit one fine-tuned model: base + lambda(depth) * (expert - base), as the paper does after training.

    Args:
        base: the pre-trained model.
        expert: the fine-tuned one.
        alpha: lambda at the first block and outside the blocks.
        beta: what lambda grows by up to the last block; by default 1 - alpha.
        scaling: as in `merge`.
        params: of the scaling.
        blocks: as in `merge`.
        exclude: as in `merge`.

    Returns:
        A new state dict with the base's names and types.

    Raises:
        ValueError: as `merge`.
    """
    return merge(
        base,
        {"expert": expert},
        scaling=scaling,
        alpha=alpha,
        beta=1 - alpha if beta is None else beta,
        params=params,
        blocks=blocks,
        exclude=exclude,
    )


def _opened(name: str, model: Model, hashed: bool) -> Checkpoint:
    if isinstance(model, str | Path):
        return open_checkpoint(str(model)) if hashed else open_unchecked(str(model))
    state = model.state_dict() if isinstance(model, nn.Module) else model
    return checked(name, plain_numbers(name, {key: tensor.detach().cpu() for key, tensor in state.items()}), hashed)
