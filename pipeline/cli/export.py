"""The command `lines export`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import RunPlace
from pipeline.console import print_result, user_errors


def export(
    run: RunPlace,
    arm: Annotated[str, typer.Option(metavar="NAME", help="The arm whose chosen model is exported.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="A new folder; with --mergekit, a new YAML file.")
    ],
    expert: Annotated[str, typer.Option(metavar="NAME", help="The expert, if the arm edits each one.")] = "",
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A value at another point of the arm's space, such as lambda=0.4; repeatable.",
        ),
    ] = None,
    mergekit: Annotated[
        bool,
        typer.Option("--mergekit", help="Write a recipe of mergekit that gives the same tensors, in place of weights."),
    ] = False,
) -> None:
    """Write the model that an arm chose, or that of another point: weights, recipe and model card.

    A merge of LoRA policies of a language model is written as a LoRA adapter. With --mergekit, a candidate of which
    mergekit has no recipe is an error that says why.
    """
    from lines_sweep.opened import open_run
    from pipeline.checkpoints.coverage import Part

    with user_errors():
        opened, at = open_run(run), _point(point or [])
        if mergekit:
            print_result(f"wrote {opened.export_mergekit(arm, output, expert=expert, point=at)}: a recipe of mergekit")
            return
        path = opened.export(arm, output, expert=expert, point=at)
        for part in json.loads((path / "recipe.json").read_text(encoding="utf-8"))["coverage"]:
            print_result(str(Part.from_json(part)))
        print_result(f"wrote {path}: README.md there shows how to load it")


def _point(texts: list[str]) -> dict[str, str]:
    """Parse NAME=VALUE."""
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (_, equals, _) in zip(texts, pairs, strict=True) if not equals]:
        raise ValueError(f"--point {wrong[0]}: must be NAME=VALUE, such as lambda=0.4")
    return {name.strip(): value.strip() for name, _, value in pairs}
