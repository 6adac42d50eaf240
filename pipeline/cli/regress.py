"""The command `lines regress`: compare a run with a baseline, on the terminal and in continuous integration."""

import json
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import FinishedRun, Json
from pipeline.cli.completion import complete_run
from pipeline.console import console, plain, print_result, progress_bar, user_errors
from tasks.files.atomic import write_whole

if TYPE_CHECKING:  # plotly and Arrow: not before they are needed
    from pipeline.regress.compare import Regression
    from pipeline.regress.pairs import Allowed
    from pipeline.regress.snapshot import Snapshot
    from pipeline.report.tables.table import Table
    from pipeline.spec.thresholds import Regress


def regress(
    run: FinishedRun,
    baseline: Annotated[
        str | None,
        typer.Option(help="Another run, or a file made by `lines baseline set`.", autocompletion=complete_run),
    ] = None,
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
    simulate: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Instead, simulate calls in which nothing changed, and calls with planted drops: how often is there "
            "an alarm? With or without a baseline.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the choices of every arm of RUN with a baseline on test, sample by sample.

    Exit status: 0 if nothing regressed, 1 if something did, 2 if the comparison failed; 0 after a self-test. The
    thresholds are in the spec's `regress` section (docs/guides/regression.md).
    """
    with user_errors():
        from pipeline.regress.baseline import read_place
        from pipeline.regress.compare import compare
        from pipeline.regress.junit import junit_error, junit_report
        from pipeline.regress.pairs import Allowed
        from pipeline.regress.text import comparison_markdown, comparison_table, sentences

        if as_json and markdown == "-":
            raise ValueError("--markdown -: prints Markdown in place of the JSON of --json; leave one of them out")
        allowed = Allowed(only_common, same_samples)
        if simulate:
            if junit is not None:
                raise ValueError("--junit: a self-test has no test cases; leave it out, or use --json or --markdown")
            return _show(_self_test(run, baseline, spec, allowed), markdown, as_json)
        if baseline is None:
            raise ValueError("--baseline: give a run or a file of `lines baseline set`, or use --self-test")
        try:
            new = read_place(run)
            found = compare(new, read_place(baseline), _thresholds(new, spec), allowed)
        except Exception as error:
            if junit is not None:
                _write(junit, junit_error(run, str(error)))
            if isinstance(error, ValueError | OSError):
                raise
            traceback.print_exc()
            raise typer.Exit(2) from error  # 1, Python's status, means a regression
        answer = _Answer(_facts(found), comparison_table(found), sentences(found), comparison_markdown(found))
        _show(answer, markdown, as_json)
        if junit is not None:
            _write(junit, junit_report(found))
        raise typer.Exit(1 if found.having("regressed") else 0)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a call prints: as JSON, as a table with sentences, or as a page of Markdown."""

    facts: dict[str, Any]
    table: "Table"
    sentences: Sequence[str]
    page: str


def _self_test(run: str, baseline: str | None, spec: Path | None, allowed: "Allowed") -> _Answer:
    from pipeline.regress.baseline import read_place
    from pipeline.regress.self_test import RESAMPLES, self_test
    from pipeline.regress.self_test_text import self_test_markdown, self_test_sentences, self_test_table

    new, old = read_place(run), None if baseline is None else read_place(baseline)
    with progress_bar() as watch:
        tested = self_test(new, old, _thresholds(new, spec), allowed, RESAMPLES, watch)
    about = {"run": run, "baseline": baseline, "level": tested.level, "resamples": tested.resamples}
    comparisons = [asdict(comparison) for comparison in tested.comparisons]
    rates = {"alarms": asdict(tested.alarms), "comparisons": comparisons}
    facts = {**about, **rates, "left_out": list(tested.left_out)}
    return _Answer(facts, self_test_table(tested), self_test_sentences(tested), self_test_markdown(tested))


def _facts(found: "Regression") -> dict[str, Any]:
    comparisons = [asdict(comparison) for comparison in found.comparisons]
    about = {"run": found.run.place, "baseline": found.baseline.place, "level": found.level}
    return {**about, "comparisons": comparisons, "changes": list(found.changes), "left_out": list(found.left_out)}


def _thresholds(run: "Snapshot", spec: Path | None) -> "Regress":
    from pipeline.spec.load import load_spec, parse_spec

    if spec is not None:
        return load_spec(spec).regress
    return parse_spec(run.about["spec"], run.place).regress


def _show(answer: _Answer, markdown: str | None, as_json: bool) -> None:
    from pipeline.cli.tables import rendered

    if as_json:
        print_result(json.dumps(answer.facts, indent=2))
    elif markdown == "-":
        typer.echo(plain(answer.page))
    else:
        console.print(rendered(answer.table))
        for sentence in answer.sentences:
            print_result(f"- {sentence}")
    if markdown is not None and markdown != "-":
        _write(Path(markdown), answer.page)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
