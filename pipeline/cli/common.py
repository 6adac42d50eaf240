"""Arguments and functions that several commands share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.completion import complete_run

SpecPath = Annotated[Path, typer.Argument(help="The run's spec, a YAML file.", metavar="SPEC")]
RunPlace = Annotated[
    str, typer.Argument(help="A run's folder, a path or a URL.", metavar="RUN", autocompletion=complete_run)
]
FinishedRun = Annotated[
    str, typer.Argument(help="A finished run's folder, a path or a URL.", metavar="RUN", autocompletion=complete_run)
]
Address = Annotated[
    str, typer.Option(help="The cluster's dashboard: http://HOST:8265, HOST, or auto for this machine's Ray.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A Ray cluster to join: auto, or HOST:PORT; by default Ray starts here."),
]
PoolName = Annotated[str | None, typer.Option(metavar="ray|local", help="Where workers run, overriding the spec.")]
ModelsFolder = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The folder of the models; by default runs/NAME.")
]
ModelWorkers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Models to train at the same time, overriding the spec.")
]
Workers = Annotated[int | None, typer.Option(min=1, metavar="N", help="Number of workers, overriding the spec.")]
Cache = Annotated[bool, typer.Option(help="Use scores of earlier runs, and keep new scores for later runs.")]
#: What remains after Ctrl-C while models are trained.
MODELS_KEPT = "finished models and the last checkpoint of the others are kept; rerun the same command to resume"
Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]


def named_values(option: str, texts: Iterable[str], form: str = "NAME=VALUE") -> list[tuple[str, str]]:
    """Return the names and values of a repeatable option, in their order.

    Raises:
        ValueError: if one has no name, no "=" or no value.

    Example:
        >>> named_values("--param", ["keep=20"])
        [('keep', '20')]
    """
    pairs = [(name.strip(), value, text) for text in texts for name, _, value in [text.partition("=")]]
    if wrong := [text for name, value, text in pairs if not name or not value.strip()]:
        raise ValueError(f"{option}: must be {form}, got {wrong[0]!r}")
    return [(name, value) for name, value, _ in pairs]
