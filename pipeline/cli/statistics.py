"""The command `lines statistics`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.console import print_result, user_errors


def statistics(
    spec: Annotated[
        Path,
        typer.Argument(help="The spec of a run, a YAML file; its base, experts and tasks are used.", metavar="SPEC"),
    ],
    kind: Annotated[Literal["fisher", "gram"], typer.Option(help="fisher for the method fisher, gram for regmean.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write EXPERT.safetensors for each expert.")],
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Validation images of each expert's task.")] = 256,
) -> None:
    """Gather statistics of every expert of SPEC on validation images of its task, for `lines merge --statistics`.

    Tensors are named as in the expert's checkpoint, and the metadata of a file hold its fingerprint. Runs and this
    command share what they have gathered.
    """
    with user_errors():
        from pipeline.learning.files import write_statistics  # torch takes seconds to import
        from pipeline.spec.load import load_spec
        from pipeline.spec.user_code import announce_code

        read = load_spec(spec)
        announce_code(read)
        for path in write_statistics(read, kind, samples, out):
            print_result(f"wrote {path}")
