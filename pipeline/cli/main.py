"""The command `lines`."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.cli.baseline import baseline
from pipeline.cli.dashboard import dashboard
from pipeline.cli.report import show_index, show_report
from pipeline.cli.finetune import finetune
from pipeline.run.forecast import forecast, proposed
from pipeline.cli.history import history
from pipeline.cli.jobs import jobs
from pipeline.records.journal import FILE_NAME
from pipeline.records.ledger import Ledger
from pipeline.cli.merge import merge
from pipeline.cli.mirror import mirror
from pipeline.console import STOPPED, console, errors_for_people, say, tell
from pipeline.plan.plan import Plan, make_plan
from pipeline.cli.ppo import ppo
from pipeline.cli.prepare import prepare
from pipeline.cluster.auth import use_token
from pipeline.cli.regress import regress
from pipeline.spec.run import RunSpec
from pipeline.spec.user_code import code_named, tell_code
from pipeline.spec.load import load_spec
from pipeline.cli.statistics import statistics
from pipeline.storage.run_folder import open_run, run_folder
from pipeline.cli.index import common_place
from pipeline.cli.submit import submit

app = typer.Typer(
    name="lines",
    help="Choose how to edit or merge fine-tuned models: LiNeS sweeps, evaluated and compared with their controls.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("merge")(merge)
app.command("finetune")(finetune)
app.command("ppo")(ppo)
app.command("prepare")(prepare)
app.command("statistics")(statistics)
app.command("dashboard")(dashboard)
app.command("mirror")(mirror)
app.command("regress")(regress)
app.command("history")(history)
app.add_typer(baseline, name="baseline")
app.command("submit")(submit)
app.add_typer(jobs, name="jobs")

SpecPath = Annotated[Path, typer.Argument(help="The run's spec, a YAML file.", metavar="SPEC")]
RunPlace = Annotated[str, typer.Argument(help="A run's folder, a path or a URL.", metavar="RUN")]
_KEPT = "what a run has scored so far is kept; the same command goes on from here"


@app.command()
def run(
    specs: Annotated[list[Path], typer.Argument(help="Specs, YAML files, worked in turn.", metavar="SPEC...")],
    out: Annotated[
        str | None,
        typer.Option(help="The run's folder, a path or a URL; for several specs the folder of theirs; else runs/NAME."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: auto, or HOST:PORT. Without it Ray starts here.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="ray or local, instead of the spec's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers, instead of the spec's.")] = None,
    cache: Annotated[bool, typer.Option(help="Use scores of earlier runs, and keep these for later ones.")] = True,
) -> None:
    """Work specs to their end: tables, report.html and report.md; the same command goes on where it was stopped.

    Several specs are all read first, and a mistake in one stops the command; one whose checkpoints, data or workers
    fail does not stop the others.
    """
    with errors_for_people(_KEPT):
        plans = _plans(specs, pool, workers)
        places = _places(plans, out)
        use_token(address)
        for plan in plans:
            tell_code(plan.spec)
        from pipeline.execute import Where, execute, ray_for  # torch and Ray: not before the specs are known to be good

        status = dict.fromkeys(places, 0)
        with ray_for(plans, address):
            for plan, place in zip(plans, places, strict=True):
                if len(plans) > 1:
                    console.rule(escape(plan.spec.name))
                with _others_go_on(len(plans) > 1, place, status), open_run(place, say) as opened:
                    where = Where(opened.folder, cache, address is not None, opened.check, opened.keep)
                    execute(plan, where, console)
                    status[place] = show_report(opened.folder, place)
        worked = [place for place in places if status[place] < 2]
        if len(plans) > 1 and worked:
            show_index(worked, out or "runs")
        raise typer.Exit(max(status.values()))


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="Runs' folders, paths or URLs.", metavar="RUN...")],
) -> None:
    """Write a run's tables and report anew, from its journal; for a run in progress, from what it has scored by now.

    Of several runs, an index too: index.html and index.md in the folder that holds them.
    """
    from pipeline.run.run import rebuild

    with errors_for_people():
        places = _runs(runs)
        common = common_place(places) if len(places) > 1 else None
        for place in places:
            with run_folder(place, write=True) as folder:
                rebuild(folder)
                show_report(folder, place)
        if common is not None:
            show_index(places, common)


@app.command()
def validate(
    spec: SpecPath,
    code: Annotated[bool, typer.Option(help="Run what plug-ins and rewards of the spec need to be checked.")] = True,
) -> None:
    """Check a spec with its checkpoints and data, without evaluating anything."""
    with errors_for_people():
        plan = _plan(spec)
        if not code and (named := code_named(plan.spec)):
            said = f"not run: {'; '.join(named)}; the rest of it is valid, its checkpoints and data were not looked at"
            tell(said)
            return
        tell_code(plan.spec)
        from pipeline.execute import prepare_shown

        identity = prepare_shown(plan.spec, "cpu", console)
        console.print(_plan_table(plan))
        val, test = (sum(counts) for counts in zip(*((v, t) for _, v, t in identity.tasks.values()), strict=True))
        samples = f"{val} validation and {test} test samples"
        console.print(f"{len(identity.block_sizes)} blocks, {len(identity.tasks)} tasks, {samples}")
        work = forecast(plan, Ledger(identity, plan.spec.shard_size, {}))
        console.print(f"at most {work.samples:,} samples to score, in {work.shards:,} shards", highlight=False)
        console.print(f"[green]valid[/]: {escape(str(spec))}", highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of specs, for editors."""
    typer.echo(json.dumps(RunSpec.model_json_schema(), indent=2))


@app.command()
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

    with errors_for_people(), run_folder(run) as folder:
        path = write(folder, Wanted(arm, expert, _point(point or [])), output)
        said = f"wrote {path}: README.md there says how to load it"
        tell(said)


def _point(given: list[str]) -> dict[str, str]:
    """Raises ValueError: a part is not NAME=VALUE."""
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (_, equals, _) in zip(given, pairs, strict=True) if not equals]:
        raise ValueError(f"--point {wrong[0]}: must be NAME=VALUE, such as lambda=0.4")
    return {name.strip(): value.strip() for name, _, value in pairs}


@app.command()
def doctor() -> None:
    """What is installed, which devices there are, whether Ray starts and a hub is in reach."""
    from pipeline.cli.doctor import doctor as check

    raise typer.Exit(0 if check(console) else 1)


@contextmanager
def _others_go_on(several: bool, place: str, status: dict[str, int]) -> Iterator[None]:
    """Tell an error, and keep its status for the end; that of a single run, and Ctrl-C, end the command at once."""
    try:
        with errors_for_people(_KEPT):
            yield
    except typer.Exit as end:
        if not several or end.exit_code == STOPPED:
            raise
        status[place] = end.exit_code


def _plans(paths: list[Path], pool: str | None, workers: int | None) -> list[Plan]:
    """The plan of each spec.

    Raises:
        ValueError: some are no valid specs; what is wrong with each of them is told.
    """
    plans, errors = [], []
    for path in paths:
        try:
            plans.append(_plan(path, pool, workers))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("\n".join(errors))
    return plans


def _plan(path: Path, pool: str | None = None, workers: int | None = None) -> Plan:
    spec = load_spec(path)
    spec = spec.model_copy(update={"resources": spec.resources.changed(pool, workers)})
    try:
        return make_plan(spec)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _places(plans: list[Plan], out: str | None) -> list[str]:
    """Each run's folder.

    Raises:
        ValueError: two specs have the same name, and so the same folder.
    """
    if len(plans) == 1 and out is not None:
        return [out]
    names = [plan.spec.name for plan in plans]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"name: specs that are run together need names of their own, got {', '.join(twice)} twice")
    return [f"{(out or 'runs').rstrip('/')}/{name}" for name in names]


def _runs(places: list[str]) -> list[str]:
    """The places, each once.

    Raises:
        ValueError: one of them holds no run; said before any is worked on.
    """
    runs: dict[Path, str] = {}
    others = []
    for place in places:
        with run_folder(place) as folder:
            runs.setdefault(folder.resolve(), place)
            if not (folder / FILE_NAME).is_file():
                others.append(place)
    if others:
        hint = "; of a folder of runs, name the folders in it: FOLDER/*/" if len(places) > 1 else ""
        raise ValueError(f"{', '.join(others)}: no run here: there is no {FILE_NAME}{hint}")
    return list(runs.values())


def _plan_table(plan: Plan) -> Table:
    table = Table("arm", "kind", "searches", "candidates each", "objective")
    arms: dict[str, list[int]] = {}
    for group in plan.groups:
        arms.setdefault(group.arm, []).append(proposed(group))
    kinds = {g.arm: (g.kind, "; ".join(g.objectives)) for g in plan.groups}
    for arm, counts in arms.items():
        table.add_row(arm, kinds[arm][0], str(len(counts)), str(counts[0]), kinds[arm][1])
    return table


def main() -> None:
    """Run the command with warnings shown once."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    app()
