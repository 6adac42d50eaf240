"""The command `lines import`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import named_values
from pipeline.console import print_note, print_result, user_errors


def import_recipe(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe of mergekit, a YAML file.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="SPEC", help="A new file; by default the spec is printed.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SOURCE", help="What is scored, such as arc=lm_eval/arc_easy; repeatable."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="The pre-trained model, for recipes without a base_model to start from."),
    ] = None,
) -> None:
    """Write the spec of a run that has a recipe of mergekit as an arm, to score it and to search around it.

    Without --task the spec has a place for tasks, which `lines validate` asks for. A recipe whose values differ from
    tensor to tensor is refused, as a spec has no field for them: `lines merge --recipe` merges by any.
    """
    from pipeline.checkpoints.mergekit.schedule import read_schedule
    from pipeline.checkpoints.mergekit.spec_text import SpecOptions, spec_text

    with user_errors():
        if output is not None and output.exists():
            raise ValueError(f"--output: {output} exists; choose another name")
        schedule = read_schedule(recipe)
        folder = output.parent if output is not None else Path()
        text = spec_text(schedule, SpecOptions(folder, _tasks(task or []), base))
        for note in schedule.notes:
            print_note(note)
        if output is None:
            typer.echo(text, nl=False)
            return
        output.write_text(text, encoding="utf-8")
        print_result(f"wrote {output}")
        if not task:
            print_note(f"name the tasks in it, then: lines validate {output}")


def _tasks(texts: list[str]) -> dict[str, str]:
    form = "NAME=SOURCE, such as arc=lm_eval/arc_easy"
    return {name: source.strip() for name, source in named_values("--task", texts, form)}
