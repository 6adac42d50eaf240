"""The commands `lines validate` and `lines schema`."""

import json
from typing import Annotated

import typer
from rich.table import Table

from pipeline.cli.common import SpecPath, plan_of
from pipeline.console import console, print_result, progress_bar, styled, user_errors
from pipeline.plan.plan import Plan
from pipeline.records.ledger import Ledger
from pipeline.run.forecast import forecast, proposed
from pipeline.spec.run import RunSpec
from pipeline.spec.user_code import announce_code, list_user_code


def validate(
    spec: SpecPath,
    code: Annotated[bool, typer.Option(help="Run the code of plug-ins and rewards that the spec names.")] = True,
) -> None:
    """Check a spec, its checkpoints and its data, and list its arms; nothing is evaluated.

    With --no-code, a spec that names code is checked without its checkpoints and data.
    """
    with user_errors():
        plan = plan_of(spec)
        if not code and (named := list_user_code(plan.spec)):
            rest = "the rest of the spec is valid; its checkpoints and data were not looked at"
            return print_result(f"not run: {'; '.join(named)}; {rest}")
        announce_code(plan.spec)
        from pipeline.loading.prepare import prepare  # torch: not before the spec is known to be valid

        with progress_bar() as report:
            identity = prepare(plan.spec, "cpu", report)
        console.print(_plan_table(plan))
        val, test = (sum(counts) for counts in zip(*((v, t) for _, v, t in identity.tasks.values()), strict=True))
        samples = f"{val} validation and {test} test samples"
        console.print(f"{len(identity.block_sizes)} blocks, {len(identity.tasks)} tasks, {samples}")
        work = forecast(plan, Ledger(identity, plan.spec.shard_size, {}))
        console.print(f"at most {work.samples:,} samples to score, in {work.shards:,} shards", highlight=False)
        console.print(styled("green", "valid", f": {spec}"), highlight=False)


def schema() -> None:
    """Print the JSON schema of the spec of a run, for editors."""
    typer.echo(json.dumps(RunSpec.model_json_schema(), indent=2))


def _plan_table(plan: Plan) -> Table:
    table = Table("arm", "kind", "searches", "candidates each", "objective")
    arms: dict[str, list[int]] = {}
    for group in plan.groups:
        arms.setdefault(group.arm, []).append(proposed(group))
    kinds = {g.arm: (g.kind, "; ".join(g.objectives)) for g in plan.groups}
    for arm, counts in arms.items():
        table.add_row(arm, kinds[arm][0], str(len(counts)), str(counts[0]), kinds[arm][1])
    return table
