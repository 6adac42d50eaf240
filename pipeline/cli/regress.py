"""The command `lines regress`: a run held against a baseline, for people and for continuous integration."""

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.console import console, plain, user_errors
from pipeline.spec.load import load_spec, parse_spec
from pipeline.spec.thresholds import Regress

if TYPE_CHECKING:  # plotly and Arrow: not before they are needed
    from pipeline.regress.compare import Regression
    from pipeline.regress.snapshot import Snapshot


def regress(
    run: Annotated[str, typer.Argument(help="A finished run's folder, a path or a URL.", metavar="RUN")],
    baseline: Annotated[str, typer.Option(help="Another run, or a file that `lines baseline set` made.")],
    spec: Annotated[
        Path | None, typer.Option(help="A spec whose `regress` counts.", show_default="that of the run itself")
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(help="Also write Markdown into this file; - prints it in place of the table.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML into this file.")] = None,
    only_common: Annotated[
        bool, typer.Option("--only-common", help="Leave out arms and tasks that one of the two lacks.")
    ] = False,
    same_samples: Annotated[
        bool,
        typer.Option(
            "--same-samples", help="Tasks hold the same samples in the same order, though their fingerprints differ."
        ),
    ] = False,
) -> None:
    """Compare what every arm of RUN chose with the baseline, on test, sample by sample.

    Exit status: 0 if nothing regressed, 1 if something did, 2 if they could not be compared. Thresholds stand in the
    spec's `regress` (docs/guides/regression.md).
    """
    with user_errors():
        from pipeline.regress.baseline import read_place
        from pipeline.regress.compare import compare
        from pipeline.regress.junit import junit as as_junit
        from pipeline.regress.junit import junit_error, write
        from pipeline.regress.pairs import Leave

        try:
            mine = read_place(run)
            found = compare(mine, read_place(baseline), _thresholds(mine, spec), Leave(only_common, same_samples))
        except Exception as error:
            if junit is not None:
                write(junit, junit_error(run, str(error)))
            if isinstance(error, ValueError | OSError):
                raise
            traceback.print_exc()
            raise typer.Exit(2) from error  # Python's 1 would say that something regressed
        _tell(found, markdown)
        if junit is not None:
            write(junit, as_junit(found))
        raise typer.Exit(1 if found.having("regressed") else 0)


def _thresholds(run: "Snapshot", spec: Path | None) -> Regress:
    if spec is not None:
        return load_spec(spec).regress
    return parse_spec(run.about["spec"], run.place).regress


def _tell(found: "Regression", markdown: str | None) -> None:
    from pipeline.cli.tables import rendered
    from pipeline.regress.junit import write
    from pipeline.regress.text import markdown as as_markdown
    from pipeline.regress.text import sentences, table

    if markdown == "-":
        typer.echo(plain(as_markdown(found)))
        return
    console.print(rendered(table(found)))
    for said in sentences(found):
        console.print(f"- {said}", markup=False, highlight=False, soft_wrap=True)
    if markdown is not None:
        write(Path(markdown), as_markdown(found))
