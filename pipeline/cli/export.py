"""The command `lines export`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import RunPlace, named_values
from pipeline.cli.completion import complete_arm, complete_expert
from pipeline.console import print_result, user_errors


def export(
    run: RunPlace,
    arm: Annotated[
        str,
        typer.Option(metavar="NAME", help="The arm whose chosen model is exported.", autocompletion=complete_arm),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="A new folder; with --mergekit, a new YAML file.")
    ],
    expert: Annotated[
        str,
        typer.Option(metavar="NAME", help="The expert, if the arm edits each one.", autocompletion=complete_expert),
    ] = "",
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
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/REPO", help="Also upload the folder to the Hugging Face hub.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository of --push public.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what --push would upload; nothing is sent.")] = False,
) -> None:
    """Write the model that an arm chose, or that of another point: weights, recipe and model card.

    A merge of LoRA policies of a language model is written as a LoRA adapter. With --mergekit, a candidate of which
    mergekit has no recipe is an error that says why.
    """
    from lines_sweep.opened import open_run
    from pipeline.checkpoints.coverage import Part
    from pipeline.export import candidate

    with user_errors():
        _check_push(push, public or dry_run, mergekit)
        folder, choice = open_run(run).folder, candidate.CandidateChoice.of(arm, expert, _point(point or []))
        if mergekit:
            print_result(f"wrote {candidate.export_mergekit(folder, choice, output)}: a recipe of mergekit")
            return
        path = candidate.export(folder, choice, output)
        for part in json.loads((path / "recipe.json").read_text(encoding="utf-8"))["coverage"]:
            print_result(str(Part.from_json(part)))
        print_result(f"wrote {path}: README.md there shows how to load it")
        if push is not None:
            _push(path, push, public, dry_run)


def _check_push(push: str | None, needs_it: bool, mergekit: bool) -> None:
    """Check the options before a model is rebuilt."""
    if push is None:
        if needs_it:
            raise ValueError("--public and --dry-run: are used with --push OWNER/REPO only")
        return
    from pipeline.export.hub import check_repository

    if mergekit:
        raise ValueError("--push: uploads weights, and --mergekit writes none; leave one of them out")
    check_repository(push)


def _push(folder: Path, repository: str, public: bool, dry_run: bool) -> None:
    from pipeline.export.hub import push, uploads

    if dry_run:
        for name, size in uploads(folder):
            print_result(f"would upload {name}, {size:,} bytes")
        return
    print_result(f"uploaded: {push(folder, repository, private=not public)}")


def _point(texts: list[str]) -> dict[str, str]:
    return {name: value.strip() for name, value in named_values("--point", texts, "NAME=VALUE, such as lambda=0.4")}
