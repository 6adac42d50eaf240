"""The command `lines export`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import RunPlace
from pipeline.console import print_result, user_errors
from pipeline.storage.run_folder import run_folder


def export(
    run: RunPlace,
    arm: Annotated[str, typer.Option(help="The arm whose choice is exported.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
    expert: Annotated[str, typer.Option(help="Of an edit: which expert.")] = "",
    point: Annotated[
        list[str] | None, typer.Option(help="A point of the arm's space, as NAME=VALUE, such as lambda=0.4.")
    ] = None,
) -> None:
    """Write the weights that an arm chose, or those of a point: safetensors, the recipe, a model card.

    Of a language model's policies it is a LoRA adapter where they are such.
    """
    from pipeline.export.candidate import Wanted
    from pipeline.export.candidate import export as write

    with user_errors(), run_folder(run) as folder:
        path = write(folder, Wanted(arm, expert, _point(point or [])), output)
        said = f"wrote {path}: README.md there says how to load it"
        print_result(said)


def _point(given: list[str]) -> dict[str, str]:
    """Raises ValueError: a part is not NAME=VALUE."""
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (_, equals, _) in zip(given, pairs, strict=True) if not equals]:
        raise ValueError(f"--point {wrong[0]}: must be NAME=VALUE, such as lambda=0.4")
    return {name.strip(): value.strip() for name, _, value in pairs}
