"""The command `lines merge`: one merged model from files, without a study."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.console import console, print_result, user_errors
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Method, resolve_weights
from pipeline.merging.scaling import CONTROLS, SCALINGS, is_equal_norm, split_control
from pipeline.parameters import look_up, resolve
from pipeline.recipe import AUTO, ParamValue, Recipe
from tasks.registry import near

if TYPE_CHECKING:  # torch takes two seconds to import, which `lines --help` need not wait for
    from torch import Tensor

    from pipeline.checkpoints.checkpoint import Checkpoint
    from pipeline.checkpoints.merge import Merged
    from tasks.base import LayerMap

#: What learns from data works in a run alone, and the base itself is no merge.
_FROM_FILES = {name: method for name, method in METHODS.items() if name != "zero" and method.needs != "learned"}
_WHOLE = ", ".join(name for name, method in _FROM_FILES.items() if method.whole)


def merge(
    base: Annotated[str, typer.Option(help="The pre-trained model: a file, a folder, hf:OWNER/REPO or embedded/NAME.")],
    expert: Annotated[list[str], typer.Option(help="A fine-tuned model; repeat for more.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The merged model, a .safetensors file.")],
    method: Annotated[str, typer.Option(help=f"How to combine: {', '.join(_FROM_FILES)}.")] = "sum",
    param: Annotated[list[str] | None, typer.Option(help="key=value of the method or the scaling; repeatable.")] = None,
    scaling: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(SCALINGS)}; in front of it {', '.join(f'{c}:' for c in CONTROLS)} for a control."
        ),
    ] = "linear",
    alpha: Annotated[
        str | None,
        typer.Option(
            help="A number, or auto (equation 2; auto_l2 for its L2 norm).", show_default=f"1 for {_WHOLE}; else auto"
        ),
    ] = None,
    beta: Annotated[float, typer.Option(help="What is added at the last block.")] = 0.0,
    weight: Annotated[list[float] | None, typer.Option(help="One for each expert, in their order.")] = None,
    statistics: Annotated[
        list[str] | None, typer.Option(help="For fisher and regmean, of each expert; `lines statistics` makes them.")
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(help="Regular expression at the start of names; its group is the block's number.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
) -> None:
    """Merge or edit fine-tuned models: base + lambda(depth) * combine(experts - base).

    Works on any state dict. Each tensor keeps the base's type; tensors of integers are the base's.
    """
    with user_errors():
        _check_output(output, overwrite)
        recipe = _recipe(method, scaling, alpha, beta, weight or [], param or [])
        sources = _Sources(base, expert, statistics or [])
        _check(recipe, sources)
        _merge(recipe, sources, blocks, output)
        print_result(f"wrote {output}")


@dataclass(frozen=True)
class _Sources:
    """What to read, as the user named it."""

    base: str
    experts: list[str]
    statistics: list[str]


def _check(recipe: Recipe, sources: _Sources) -> None:
    """All that can be told before anything is read, which may take minutes."""
    from pipeline.checkpoints.statistics import check_sources

    method = METHODS[recipe.method]
    if recipe.method == "zero":
        raise ValueError("the result would be the base itself: choose another --method, --alpha or --beta")
    if recipe.method == "weighted" and not recipe.weights:
        raise ValueError("--method weighted: needs --weight, one for each expert")
    method.check(resolve_weights(recipe.weights, len(sources.experts)), resolve(method.parameters, dict(recipe.params)))
    check_sources(recipe.method, method, sources.statistics, len(sources.experts))


def _merge(recipe: Recipe, sources: _Sources, blocks: str | None, output: Path) -> None:
    """Read, merge, write and say what was done."""
    from pipeline.checkpoints.checkpoint import read_checkpoint
    from pipeline.checkpoints.lazy import open_checkpoint
    from pipeline.checkpoints.merge import edited_names, merge_states
    from pipeline.checkpoints.statistics import open_statistics
    from pipeline.checkpoints.writing import write_safetensors

    base = read_checkpoint(sources.base)
    layer_map, layout = _layer_map(base, blocks)
    experts = [open_checkpoint(e) for e in sources.experts]
    untouched = _in_no_expert(base, experts, layer_map)
    edited = replace(base, state={name: t for name, t in base.state.items() if name not in untouched})
    theta0 = {name: edited.state[name] for name in edited_names(edited.state)}
    statistics = open_statistics(METHODS[recipe.method], sources.statistics, experts, theta0)
    merged = merge_states(edited, experts, recipe, layer_map, [s.state for s in statistics])
    inputs = _Inputs(base, experts, statistics)
    write_safetensors(output, {**untouched, **merged.state}, _metadata(recipe, merged, inputs))
    if untouched:
        names = ", ".join(list(untouched)[:3])
        console.print(f"{len(untouched)} tensors are in no expert and stay the base's: {names}, ...", highlight=False)
    console.print(f"{layout}: {layer_map.num_blocks} blocks", highlight=False, markup=False)
    console.print(_table(merged))
    console.print(_coefficients(recipe, merged), highlight=False)
    console.print(f"norm of the change {merged.change:.6g}, of the base {merged.base_norm:.6g}", highlight=False)


def _in_no_expert(base: "Checkpoint", experts: "Sequence[Checkpoint]", layer_map: "LayerMap") -> "dict[str, Tensor]":
    """Tensors outside the blocks that no expert has: fine-tuned image towers are often saved without the text tower.

    What some experts have and others lack, or what belongs to a block, is not among them: that is an error.
    """
    found = {name for expert in experts for name in expert.state}
    return {n: t for n, t in base.state.items() if n not in found and n not in layer_map.blocks}


def _check_output(output: Path, overwrite: bool) -> None:
    if output.suffix != ".safetensors":
        raise ValueError(f"--output: must end in .safetensors, got {output}")
    if output.exists() and not overwrite:
        raise ValueError(f"--output: {output} exists; choose another name, or give --overwrite")
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {output.parent}; create it")


def _recipe(
    method: str, scaling: str, alpha: str | None, beta: float, weights: Sequence[float], params: Sequence[str]
) -> Recipe:
    chosen = look_up(METHODS, method, "--method")
    number = _alpha(alpha, chosen)
    return Recipe.make(method, scaling, number, beta, tuple(weights), _params(method, scaling, params))


def _alpha(text: str | None, method: Method) -> float | str:
    if text is None:
        return 1 if method.whole else AUTO["l1"]
    if text in AUTO.values():
        return text
    try:
        return float(text)
    except ValueError:
        words = ", ".join(AUTO.values())
        raise ValueError(
            f"--alpha: must be a number or one of {words}, got {text!r}; {near(text, AUTO.values())}"
        ) from None


def _params(method: str, scaling: str, given: Sequence[str]) -> dict[str, ParamValue]:
    declared = (*METHODS[method].parameters, *split_control(scaling)[1].parameters)
    by_name = {p.name: p for p in declared}
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--param: must be key=value, got {text!r}")
        if name == "samples" and METHODS[method].needs:
            raise ValueError("--param samples: is what `lines statistics --samples` was given; leave it out here")
        values[name] = look_up(by_name, name, f"--param of {method} and {scaling}").parse(value)
    return values


def _layer_map(base: "Checkpoint", blocks: str | None) -> "tuple[LayerMap, str]":
    from pipeline.checkpoints.blocks import by_pattern, detect
    from pipeline.checkpoints.merge import edited_names

    names = edited_names(base.state)
    return (by_pattern(names, blocks), f"blocks by {blocks!r}") if blocks else detect(names)


@dataclass(frozen=True)
class _Inputs:
    """What was read."""

    base: "Checkpoint"
    experts: "Sequence[Checkpoint]"
    statistics: "Sequence[Checkpoint]"


def _metadata(recipe: Recipe, merged: "Merged", inputs: _Inputs) -> dict[str, str]:
    """What the file says of itself: content only, no path of this machine."""
    said = {
        "lines_sweep.recipe": recipe.canonical().decode(),
        "lines_sweep.constant" if is_equal_norm(recipe) else "lines_sweep.alpha": repr(merged.alpha),
        "lines_sweep.base": inputs.base.fingerprint,
        "lines_sweep.experts": json.dumps([e.fingerprint for e in inputs.experts]),
    }
    if inputs.statistics:
        said["lines_sweep.statistics"] = json.dumps([s.fingerprint for s in inputs.statistics])
    return said


def _coefficients(recipe: Recipe, merged: "Merged") -> str:
    if is_equal_norm(recipe):
        return f"constant {merged.alpha:.7g} (equal norm)"
    how = f" ({recipe.alpha}: equation 2)" if isinstance(recipe.alpha, str) else ""
    return f"alpha {merged.alpha:.7g}{how}, beta {recipe.beta:g}"


def _table(merged: "Merged") -> Table:
    table = Table("block", "parameters", "lambda")
    if len(set(merged.lambdas.all)) == 1:
        total = merged.sizes.outside + sum(merged.sizes.blocks)
        table.add_row("everywhere", f"{total:,}", f"{merged.lambdas.outside:.6g}")
        return table
    table.add_row("outside", f"{merged.sizes.outside:,}", f"{merged.lambdas.outside:.6g}")
    for block, (size, value) in enumerate(zip(merged.sizes.blocks, merged.lambdas.blocks, strict=True)):
        table.add_row(str(block), f"{size:,}", f"{value:.6g}")
    return table
