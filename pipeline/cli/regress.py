"""The command `lines regress`: compare a run with a baseline, on the terminal and in continuous integration."""

import json
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import FinishedRun, Json
from pipeline.cli.completion import complete_run
from pipeline.console import console, plain, print_result, user_errors
from tasks.files.atomic import write_whole

if TYPE_CHECKING:  # plotly and Arrow: not before they are needed
    from pipeline.regress.compare import Regression
    from pipeline.regress.snapshot import Snapshot
    from pipeline.spec.thresholds import Regress


def regress(
    run: FinishedRun,
    baseline: Annotated[
        str,
        typer.Option(help="Another run, or a file made by `lines baseline set`.", autocompletion=complete_run),
    ],
    spec: Annotated[
        Path | None, typer.Option(help="A spec with the `regress` section to use.", show_default="the run's own spec")
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(help="Also write Markdown to this file; - prints it in place of the table.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML to this file.")] = None,
    only_common: Annotated[
        bool, typer.Option("--only-common", help="Leave out arms and tasks that either run lacks.")
    ] = False,
    same_samples: Annotated[
        bool,
        typer.Option(
            "--same-samples", help="Tasks have the same samples in the same order, although their fingerprints differ."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the choices of every arm of RUN with a baseline on test, sample by sample.

    Exit status: 0 if nothing regressed, 1 if something did, 2 if the comparison failed. The thresholds are in the
    spec's `regress` section (docs/guides/regression.md).
    """
    with user_errors():
        from pipeline.regress.baseline import read_place
        from pipeline.regress.compare import compare
        from pipeline.regress.junit import junit_error, junit_report
        from pipeline.regress.pairs import Allowed
        from pipeline.regress.text import comparison_markdown

        if as_json and markdown == "-":
            raise ValueError("--markdown -: prints Markdown in place of the JSON of --json; leave one of them out")
        try:
            new = read_place(run)
            found = compare(new, read_place(baseline), _thresholds(new, spec), Allowed(only_common, same_samples))
        except Exception as error:
            if junit is not None:
                _write(junit, junit_error(run, str(error)))
            if isinstance(error, ValueError | OSError):
                raise
            traceback.print_exc()
            raise typer.Exit(2) from error  # 1, Python's status, means a regression
        if as_json:
            print_result(json.dumps(_facts(found), indent=2))
        elif markdown == "-":
            typer.echo(plain(comparison_markdown(found)))
        else:
            _print(found)
        if markdown is not None and markdown != "-":
            _write(Path(markdown), comparison_markdown(found))
        if junit is not None:
            _write(junit, junit_report(found))
        raise typer.Exit(1 if found.having("regressed") else 0)


def _facts(found: "Regression") -> dict[str, Any]:
    comparisons = [asdict(comparison) for comparison in found.comparisons]
    about = {"run": found.run.place, "baseline": found.baseline.place, "level": found.level}
    return {**about, "comparisons": comparisons, "changes": list(found.changes), "left_out": list(found.left_out)}


def _thresholds(run: "Snapshot", spec: Path | None) -> "Regress":
    from pipeline.spec.load import load_spec, parse_spec

    if spec is not None:
        return load_spec(spec).regress
    return parse_spec(run.about["spec"], run.place).regress


def _print(found: "Regression") -> None:
    from pipeline.cli.tables import rendered
    from pipeline.regress.text import comparison_table, sentences

    console.print(rendered(comparison_table(found)))
    for sentence in sentences(found):
        print_result(f"- {sentence}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
