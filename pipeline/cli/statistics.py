"""The command `lines statistics`: what Fisher merging and RegMean need of each expert, as files for `lines merge`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.console import print_result, user_errors


def statistics(
    spec: Annotated[
        Path,
        typer.Argument(help="The spec of a run, arms and all; its base, experts and tasks are used.", metavar="SPEC"),
    ],
    kind: Annotated[Literal["fisher", "gram"], typer.Option(help="fisher, for fisher; gram, for regmean.")],
    out: Annotated[Path, typer.Option(help="A folder: one EXPERT.safetensors for each expert.")],
    samples: Annotated[int, typer.Option(min=1, help="Validation images of each expert's own task.")] = 256,
) -> None:
    """Gather statistics of every expert of SPEC on validation images of its own task, for `lines merge --statistics`.

    The names are those of the expert's own checkpoint, whose fingerprint the file's metadata hold. What a run has
    gathered is used again, and the other way round.
    """
    with user_errors():
        from pipeline.learning.files import write_statistics  # torch: not before it is needed
        from pipeline.spec.load import load_spec
        from pipeline.spec.user_code import announce_code

        read = load_spec(spec)
        announce_code(read)
        for path in write_statistics(read, kind, samples, out):
            print_result(f"wrote {path}")
