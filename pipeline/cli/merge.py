"""The command `lines merge`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.cli.merge_options import output_path, parsed_alpha, parsed_components, parsed_params, parsed_step
from pipeline.console import console, folded_table, print_note, print_result, progress_bar, user_errors
from pipeline.merging.components import USUAL
from pipeline.merging.methods import METHODS, look_up_method
from pipeline.merging.methods.base import OF_SEVERAL
from pipeline.merging.scaling import CONTROLS, SCALINGS, origin_of_constant, split_control
from pipeline.merging.steps import STEPS
from pipeline.recipe import Recipe

if TYPE_CHECKING:  # torch takes two seconds to import, which `lines --help` need not wait for
    from pipeline.checkpoints.merge import Merged

#: Methods that learn from data need a run, and the base itself is no merge.
_FROM_FILES = {name: method for name, method in METHODS.items() if name != "zero" and method.needs not in OF_SEVERAL}
_WHOLE = ", ".join(name for name, method in _FROM_FILES.items() if method.whole)
_CONTROLS = ", ".join(f"{control}:" for control in CONTROLS)
#: Parameters of the command that a recipe of mergekit leaves to it.
_WITH_RECIPE = ("recipe", "output", "blocks", "exclude", "overwrite")


def merge(
    context: typer.Context,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER/",
            help="The merged model: a .safetensors file, or a folder for from_pretrained, whose name ends in /.",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="The pre-trained model: a file, a folder, a URL, hf:OWNER/REPO or embedded/NAME."
        ),
    ] = None,
    expert: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE", help="A fine-tuned model, named like the base; repeatable.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A recipe of mergekit, instead of --base, --expert and the method's options."
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"How to combine: {', '.join(_FROM_FILES)}.",
            autocompletion=lambda: list(_FROM_FILES),
        ),
    ] = "sum",
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of the method or the scaling; repeatable."),
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FACTOR",
            help=f"Multiplies lambda for a part of the model: {', '.join(USUAL)}, or one of --pattern; repeatable.",
        ),
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=REGEX",
            help="A component of your own: what is found anywhere in the names of its tensors; repeatable.",
        ),
    ] = None,
    scaling: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"A function of depth: {', '.join(SCALINGS)}; for a control, with a prefix: {_CONTROLS}.",
            autocompletion=lambda: list(SCALINGS),
        ),
    ] = "linear",
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|auto|auto_l2",
            help="A number, auto (equation 2) or auto_l2 (equation 2 with L2 norms).",
            show_default=f"1 for {_WHOLE}; else auto",
        ),
    ] = None,
    beta: Annotated[float, typer.Option(metavar="NUMBER", help="Factor of the scaling.")] = 0.0,
    then: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP[:NAME=VALUE,...]",
            help=f"A step after the merge: {', '.join(STEPS)}; repeatable, in order.",
            autocompletion=lambda: list(STEPS),
        ),
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(metavar="NUMBER", help="One weight for each expert, in their order.")
    ] = None,
    statistics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="For fisher and regmean: a file of `lines statistics` for each expert, in their order."
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Matches the start of the names of a block's tensors; its group is the block's number. By default "
            "the layout is recognised.",
        ),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Found anywhere in the names of tensors that are not merged, such as heads that only experts have or "
            "vocabularies of another size: the base's stay.",
        ),
    ] = None,
    recalibrate: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Images, at any depth and without labels, on which the statistics of batch normalisation are measured "
            "again; by default they are averaged.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The architecture, for --recalibrate: timm/NAME, torchvision/NAME or one of open_clip.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
) -> None:
    """Merge or edit fine-tuned models: base + lambda(depth) * combine(experts - base).

    lambda(depth) is alpha + beta * scaling(depth). Works on any state dict. Each tensor keeps the type that it has in
    the base (float8 becomes bfloat16); integer tensors and masks are the base's.
    """
    with user_errors():
        path = output_path(output, overwrite)
        if recipe is not None:
            _refuse_with_recipe(context)
            _merge_recipe(recipe, path, blocks, exclude)
            print_result(f"wrote {output}")
            return
        if base is None or not expert:
            raise ValueError(f"--{'expert' if base else 'base'}: is required, unless --recipe gives the models")
        strength = parsed_alpha(alpha, look_up_method(method, "--method"))
        params = parsed_params(method, scaling, param or []) | parsed_components(component or [], pattern or [])
        made = Recipe.make(method, scaling, strength, beta, tuple(weight or ()), params)
        made = made.followed_by(map(parsed_step, then or ()))
        from pipeline.checkpoints.merge_files import merge_files
        from pipeline.checkpoints.prepared_merge import MergeSources

        sources = MergeSources(base, expert, statistics or (), blocks, exclude, recalibrate, model)
        with progress_bar() as show:
            written = merge_files(sources, made, path, partial(show, "merging parameters"))
        for note in written.notes:
            print_note(note)
        console.print(f"{written.layout}: {written.num_blocks} blocks", highlight=False, markup=False)
        merged = written.merged
        console.print(_table(merged))
        for part in written.coverage:
            print_result(str(part))
        if merged.averaged and recalibrate is None:
            print_note("averaged statistics of batches are right for no model: measure them again with --recalibrate")
        if len(set(merged.lambdas.all)) == 1 and not split_control(scaling)[0] and scaling != "constant":
            print_note(
                "lambda is the same in every block, so this is no LiNeS: give --beta for one that grows with depth"
            )
        console.print(_coefficients(made, merged), highlight=False)
        for line in _scaled_components(merged):
            console.print(line, highlight=False, markup=False)
        console.print(f"norm of the change {merged.change:.6g}, of the base {merged.base_norm:.6g}", highlight=False)
        print_result(f"wrote {output}")


def _refuse_with_recipe(context: typer.Context) -> None:
    """Require that no option is given that the recipe of mergekit decides."""
    sources = {name: context.get_parameter_source(name) for name in context.params if name not in _WITH_RECIPE}
    if others := [f"--{name}" for name, source in sources.items() if source and source.name == "COMMANDLINE"]:
        raise ValueError(f"{', '.join(others)}: --recipe decides this; change it in the recipe, or leave --recipe out")


def _merge_recipe(file: Path, output: Path, blocks: str | None, exclude: str | None) -> None:
    from pipeline.checkpoints.mergekit.merge import merge_recipe
    from pipeline.checkpoints.mergekit.schedule import read_schedule

    schedule = read_schedule(file)
    written = merge_recipe(schedule, output, blocks, exclude)
    for note in written.notes:
        print_note(note)
    print_result(f"{schedule.recipe.config.merge_method} of {', '.join(schedule.recipe.models)}")
    if written.layers:
        print_result(written.layers)
    for part in written.coverage:
        print_result(str(part))


def _coefficients(recipe: Recipe, merged: "Merged") -> str:
    if origin := origin_of_constant(recipe):
        return f"constant {merged.alpha:.7g} ({origin})"
    how = f" ({recipe.alpha}: equation 2)" if isinstance(recipe.alpha, str) else ""
    return f"alpha {merged.alpha:.7g}{how}, beta {recipe.beta:g}"


def _scaled_components(merged: "Merged") -> list[str]:
    """Return each component with a factor, and what belongs to it."""
    components, sizes, lines = merged.lambdas.components, merged.sizes.names, []
    for component, factor in components.factors:
        own = [size for name, size in sizes.items() if components.component(name) == component]
        lines.append(f"{component}: lambda x {factor:g} in {len(own)} tensors, {sum(own):,} parameters")
    return lines


def _table(merged: "Merged") -> Table:
    table = folded_table("block", "parameters", "lambda")
    if len(set(merged.lambdas.all)) == 1:
        total = merged.sizes.outside + sum(merged.sizes.blocks)
        table.add_row("everywhere", f"{total:,}", f"{merged.lambdas.outside:.6g}")
        return table
    table.add_row("outside", f"{merged.sizes.outside:,}", f"{merged.lambdas.outside:.6g}")
    for block, (size, value) in enumerate(zip(merged.sizes.blocks, merged.lambdas.blocks, strict=True)):
        table.add_row(str(block), f"{size:,}", f"{value:.6g}")
    return table
