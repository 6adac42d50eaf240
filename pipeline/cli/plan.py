"""The command `lines plan`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.cli.common import PoolName, SpecPath, Workers
from pipeline.cli.completion import complete_run
from pipeline.console import console, folded_table, print_result, progress_bar, user_errors

if TYPE_CHECKING:
    from pipeline.plan.plan import Plan
    from pipeline.sizing.estimate import Estimate
    from pipeline.sizing.machine import Machine
    from pipeline.sizing.work import ArmWork

_Memory = float | None


def plan(
    spec: SpecPath,
    pool: PoolName = None,
    workers: Workers = None,
    device_memory: Annotated[
        _Memory, typer.Option(metavar="GIB", help="Memory of a GPU of the run; by default this machine's.")
    ] = None,
    host_memory: Annotated[
        _Memory, typer.Option(metavar="GIB", help="Memory of the run's machine; by default this machine's.")
    ] = None,
    throughput: Annotated[
        float | None, typer.Option(metavar="N", help="Samples, or completions, a second of one worker.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The folder of a former run: plan with its throughput.",
            autocompletion=complete_run,
        ),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Load a worker here and measure its throughput.")] = False,
) -> None:
    """Compute the memory, samples and hours of a run from headers of its checkpoints; no weights are read.

    A run that does not fit is refused with status 2, and what would fit is listed.
    """
    with user_errors():
        if sum(given is not None for given in (throughput, like)) + measure > 1:
            raise ValueError("--throughput, --like and --measure: give one of them")
        given = {"--device-memory": device_memory, "--host-memory": host_memory, "--throughput": throughput}
        for option, value in given.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{option}: must be above 0, got {value:g}")
        from lines_sweep.running import plan_of
        from pipeline.spec.user_code import announce_code

        run = plan_of(spec, pool, workers)
        announce_code(run.spec)
        from pipeline.sizing.estimate import estimate, misfits  # torch: not before the spec is known to be valid
        from pipeline.sizing.machine import Machine
        from pipeline.sizing.work import work_of

        machine = Machine.here(_bytes(host_memory), _bytes(device_memory))
        with progress_bar() as report:
            found = estimate(run, machine, report)
        _print_memory(found)
        arms = work_of(run, found.samples.counts)
        console.print(_work_table(run, arms))
        _print_stops(run)
        if problems := misfits(found, run, machine):
            raise ValueError("\n".join(problems))
        _print_hours(run, arms, machine, _rate(run, machine, throughput, like, measure))


def _bytes(gibibytes: float | None) -> int | None:
    return None if gibibytes is None else int(gibibytes * 2**30)


def _rate(
    run: "Plan", machine: "Machine", throughput: float | None, like: Path | None, measure: bool
) -> tuple[float, str] | None:
    """Return the samples a second of one worker, and where the number is from."""
    from pipeline.sizing.throughput import measured_throughput, throughput_of_run

    if throughput:
        return throughput, "given"
    if like:
        return throughput_of_run(like), f"of {like}"
    if measure:
        with progress_bar() as report:
            return measured_throughput(run, machine.device_type(run.spec.resources), report), "measured here"
    return None


def _print_memory(found: "Estimate") -> None:
    from pipeline.sizing.estimate import gib

    table = folded_table("memory of a worker", "GPU", "host", "when")
    when = {"always": "always", "opening": "while reading", "reading": "while loading", "scoring": "while scoring"}
    for part in found.parts:
        cells = ("", gib(part.size)) if part.host else (gib(part.size), "")
        table.add_row(part.what, *cells, when[part.phase])
    peaks = [gib(found.needed(host)) if found.on_device or host else "" for host in (False, True)]
    table.add_row("at most at once", *peaks, "", style="bold")
    console.print(table)
    if found.samples.activations is None:
        print_result("activations: not known: a task needs values before its forward pass; leave room for them")


def _work_table(run: "Plan", arms: "list[ArmWork]") -> Table:
    unit = "samples" if run.spec.generation is None else "completions"
    table = folded_table(
        "arm", "searches", "candidates", "free scalars", "learns from", f"validation {unit}", f"test {unit}"
    )
    for arm in arms:
        counts = (f"{n:,}" for n in (arm.searches, arm.candidates, arm.free))
        table.add_row(arm.arm, *counts, arm.learns_from, f"{arm.val:,}", f"{arm.test:,}")
    totals = [sum(numbers) for numbers in zip(*((a.searches, a.candidates, a.val, a.test) for a in arms), strict=True)]
    searches, candidates, val, test = (f"{n:,}" for n in totals)
    table.add_row("all", searches, candidates, "", "", val, test, style="bold")
    return table


def _print_stops(run: "Plan") -> None:
    """Say of each arm with more candidates than are scored in full anyway whether the others may be stopped."""
    from pipeline.plan.stops import FIRST, why_in_full
    from pipeline.run.forecast import proposed

    arms: dict[str, list[str]] = {}
    for arm, group in {g.arm: g for g in run.searched if proposed(g) > FIRST}.items():
        why = why_in_full(group, run)
        stops = f"no, since {why}" if why else "yes, if its tasks are right or wrong; the samples above are the most"
        arms.setdefault(stops, []).append(arm)
    for stops, (first, *others) in arms.items():
        more = f" and {len(others)} other arm{'s' * (len(others) > 1)}" if others else ""
        print_result(f"{first}{more}: candidates that cannot win are stopped: {stops}")


def _print_hours(run: "Plan", arms: "list[ArmWork]", machine: "Machine", rate: tuple[float, str] | None) -> None:
    from pipeline.sizing.work import hours

    samples = sum(arm.val + arm.test for arm in arms)
    unit, steps = "samples", "a forward pass each"
    if run.spec.generation is not None:
        unit, steps = "completions", f"at most {run.spec.generation.max_new_tokens} forward passes each"
    asked = run.spec.resources.workers
    workers = machine.workers(run.spec.resources) if asked == "auto" or run.spec.resources.pool == "local" else asked
    console.print(f"at most {samples:,} {unit}, {steps}; {workers} worker{'s' * (workers != 1)}", highlight=False)
    if rate is None:
        print_result("hours: not known: give --throughput, --like RUN or --measure")
        return
    per_second, origin = rate
    expected = hours(samples, per_second, workers)
    print_result(f"about {expected:,.2f} hours, at {per_second:,.1f} {unit}/s of each worker ({origin})")
