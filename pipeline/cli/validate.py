"""The commands `lines validate` and `lines schema`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pipeline.cli.common import Json
from pipeline.console import console, folded_table, print_result, progress_bar, styled, user_errors
from pipeline.spec.command_names import Command

if TYPE_CHECKING:  # pydantic, optuna and Arrow: not before they are needed
    from pydantic import BaseModel

    from pipeline.plan.plan import Plan


def validate(
    spec: Annotated[Path, typer.Argument(help="A spec of lines run, finetune or ppo, a YAML file.", metavar="SPEC")],
    code: Annotated[bool, typer.Option(help="Run the code of plug-ins and rewards that the spec names.")] = True,
    as_json: Json = False,
) -> None:
    """Check a spec of any command, its checkpoints and its data, and list what it makes; nothing is evaluated.

    With --no-code, a spec that names code is checked without its checkpoints and data.
    """
    with user_errors():
        from lines_sweep.running import plan_of
        from pipeline.spec.commands import command_of
        from pipeline.spec.load import read_file

        match command_of(read_file(spec)):
            case "run":
                plan = plan_of(spec)
                if _may_read(plan.spec, code, as_json):
                    _check_run(plan, as_json)
                    if not as_json:
                        console.print(styled("green", "valid", f": {spec}"), highlight=False)
            case command:
                if _check_training(command, spec, code, as_json) and not as_json:
                    console.print(styled("green", "valid", f": {spec}, for lines {command}"), highlight=False)


def _may_read(spec: "BaseModel", code: bool, as_json: bool) -> bool:
    """Announce the code that a spec names; return False, and print what was not run, if it may not run."""
    from pipeline.spec.user_code import announce_code, list_user_code

    if not code and (named := list_user_code(spec)):
        rest = "the rest of the spec is valid; its checkpoints and data were not looked at"
        print_result(json.dumps({"not_run": named}, indent=2) if as_json else f"not run: {'; '.join(named)}; {rest}")
        return False
    announce_code(spec)
    return True


def _check_run(plan: "Plan", as_json: bool) -> None:
    """Read the checkpoints and the data of a run, and print its arms and how much there is to score."""
    with progress_bar() as report:
        from pipeline.loading.prepare import prepare  # torch: not before the spec is known to be valid

        identity = prepare(plan.spec, "cpu", report)
    from pipeline.records.ledger import Ledger
    from pipeline.run.forecast import forecast

    val, test = (sum(counts) for counts in zip(*((v, t) for _, v, t in identity.tasks.values()), strict=True))
    work = forecast(plan, Ledger(identity, plan.spec.shard_size, {}))
    if as_json:
        facts = {"blocks": len(identity.block_sizes), "tasks": list(identity.tasks), "val": val, "test": test}
        print_result(
            json.dumps({"arms": _arms(plan), **facts, "samples": work.samples, "shards": work.shards}, indent=2)
        )
        return
    console.print(_plan_table(plan))
    samples = f"{val} validation and {test} test samples"
    console.print(f"{len(identity.block_sizes)} blocks, {len(identity.tasks)} tasks, {samples}")
    console.print(f"at most {work.samples:,} samples to score, in {work.shards:,} shards", highlight=False)


def _check_training(command: Command, path: Path, code: bool, as_json: bool) -> bool:
    """Read the base and the data of a training, print its models, and return whether this was done."""
    out, models = Path("runs"), list[tuple[str, str, int]]()
    if command == "finetune":
        from pipeline.train.finetune.preparation import prepare
        from pipeline.train.finetune.spec import load_finetune_spec

        training = load_finetune_spec(path)
        if not _may_read(training, code, as_json):
            return False
        with progress_bar() as report:
            for job in prepare(training, out / training.name, "cpu", report):
                models.append((job.name, job.run.method, job.total))
    else:
        from pipeline.train.ppo.packages import check_packages
        from pipeline.train.ppo.spec import load_ppo_spec, runs_of

        policies = load_ppo_spec(path)
        check_packages()
        from pipeline.train.ppo.preparation import Stages

        if not _may_read(policies, code, as_json):
            return False
        with progress_bar() as report:
            stages = Stages(policies, out / policies.name, "cpu", report)
        for sft in stages.first():
            models.append((sft.name, "sft", sft.total))
        for run in runs_of(policies):
            models.append((run.name, f"{run.algorithm} on {run.reward}", run.settings.updates))
    if as_json:
        facts = [{"model": name, "how": how, "steps": steps} for name, how, steps in models]
        print_result(json.dumps({"models": facts}, indent=2))
        return True
    table = folded_table("model", "how", "steps")
    for name, how, steps in models:
        table.add_row(name, how, f"{steps:,}")
    console.print(table)
    return True


def schema(
    kind: Annotated[
        Command, typer.Argument(metavar="KIND", help="The command whose specs are described: run, finetune or ppo.")
    ] = "run",
) -> None:
    """Print the JSON schema of a command's specs, as users write them, for editors."""
    from pipeline.cli.schemas import schema_of

    typer.echo(json.dumps(schema_of(kind), indent=2))


def _arms(plan: "Plan") -> list[dict[str, Any]]:
    """Return each arm with its number of searches, and the candidates of each."""
    from pipeline.run.forecast import proposed

    arms: dict[str, dict[str, Any]] = {}
    for group in plan.groups:
        first = {"arm": group.arm, "kind": group.kind, "searches": 0, "candidates": proposed(group)}
        found = arms.setdefault(group.arm, first | {"objectives": list(group.objectives)})
        found["searches"] += 1
    return list(arms.values())


def _plan_table(plan: "Plan") -> Table:
    table = folded_table("arm", "kind", "searches", "candidates each", "objective")
    for arm in _arms(plan):
        table.add_row(
            arm["arm"], arm["kind"], str(arm["searches"]), str(arm["candidates"]), "; ".join(arm["objectives"])
        )
    return table
