"""The command `lines ppo`: an SFT model and policies from a spec, to be continued where they were stopped."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress as Bars
from rich.table import Table

from pipeline.cluster.auth import use_token
from pipeline.console import console, print_result, user_errors
from pipeline.train.display import TrainingDisplay, alone, say_conditions

if TYPE_CHECKING:  # torch and Ray take seconds to import, which `lines --help` need not wait for
    from pipeline.train.ppo.jobs import PpoJob
    from pipeline.train.ppo.preparation import Stages
    from pipeline.train.ppo.spec import PpoSpec

_KEPT = "finished models and the last checkpoint of the others are kept; the same command goes on from there"
#: Trains jobs, shows them, and returns name -> cause of those that failed.
TrainFunction = Callable[[Any, "list[PpoJob]", TrainingDisplay], dict[str, str]]


def ppo(
    spec: Annotated[Path, typer.Argument(help="The spec of the training, a YAML file.", metavar="SPEC")],
    out: Annotated[Path | None, typer.Option(help="The folder of the models; runs/NAME where left out.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: auto, or HOST:PORT. Without it Ray starts here.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="ray or local, instead of the spec's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Models at a time, instead of the spec's.")] = None,
) -> None:
    """Make an SFT model and, from it, policies that learn the rewards of SPEC; the command goes on where it stopped.

    Each policy is a LoRA adapter that a sweep's spec can name as an expert, with the SFT model as its base.
    """
    with user_errors(_KEPT):
        from pipeline.spec.user_code import announce_code
        from pipeline.train.ppo.spec import load_ppo_spec

        read = load_ppo_spec(spec)
        announce_code(read)
        read = read.model_copy(update={"resources": read.resources.changed(pool, workers)})
        folder = (out or Path("runs") / read.name).resolve()
        with alone(folder, "ppo"):
            failures = _execute(read, folder, address)
            report = _report(read, folder)
        console.print(_table(read, folder))
        if failures:
            raise ValueError("\n".join(failures.values()))
        print_result(f"models: {folder}\nreport: {report}")


def _execute(spec: "PpoSpec", folder: Path, address: str | None) -> dict[str, str]:
    """Every stage that is left; returns name -> cause of those that failed."""
    use_token(address)
    import torch

    from pipeline.cluster.session import local_ray
    from pipeline.cluster.worker_shapes import actor_shape
    from pipeline.train.executor import work_here, work_on_ray

    local = spec.resources.pool == "local"
    if local and address is not None:
        raise ValueError(f"--address {address}: the local pool joins no cluster: leave one of the two out")
    with ExitStack() as stack:
        if local:
            return _stages(spec, folder, "cuda" if torch.cuda.is_available() else "cpu", work_here)
        stack.enter_context(local_ray(address=address))
        shape = actor_shape(spec.resources)
        device_type = "cuda" if shape.num_gpus else "cpu"
        return _stages(spec, folder, device_type, lambda train, jobs, show: work_on_ray(train, jobs, shape, show))


def _stages(spec: "PpoSpec", folder: Path, device_type: str, work: TrainFunction) -> dict[str, str]:
    """The SFT model, then what rewards say of it, then the policies; a stage that fails is the last."""
    from pipeline.train.ppo.policy import train_policy
    from pipeline.train.ppo.sft import train_sft
    from pipeline.train.ppo.sft_scores import measure

    stages = _prepared(spec, folder, device_type)
    for noun, train, make in (
        ("SFT models", train_sft, stages.first),
        ("rewards measured", measure, stages.measurements),
        ("policies", train_policy, stages.policies),
    ):
        if failures := _stage(noun, train, make(), work):
            return failures
    return {}


def _stage(noun: str, train: Any, jobs: "list[PpoJob]", work: TrainFunction) -> dict[str, str]:
    found = {job.name: job.condition() for job in jobs}
    say_conditions(console, found)
    left = [job for job in jobs if found[job.name] != "finished"]
    if not left:
        return {}
    with TrainingDisplay(console, left, noun).shown() as display:
        failures = work(train, left, display)
    return failures or _unseen(left)


def _unseen(jobs: "list[PpoJob]") -> dict[str, str]:
    """What was made elsewhere: name -> what to do."""
    missing = [job.name for job in jobs if job.condition() != "finished"]
    said = (
        f"--out: {len(missing)} models were trained but are not here ({', '.join(missing[:3])}): workers on other "
        "nodes wrote them to disks of their own; give a folder that all nodes share"
    )
    return dict.fromkeys(missing[:1], said)


def _prepared(spec: "PpoSpec", folder: Path, device_type: str) -> "Stages":
    from pipeline.train.ppo.preparation import Stages

    with Bars(console=console, transient=True) as bars:
        bar = bars.add_task("preparing", total=None)
        return Stages(
            spec,
            folder,
            device_type,
            lambda what, done, total: bars.update(bar, description=what, completed=done, total=total),
        )


def _finished(spec: "PpoSpec", folder: Path) -> dict[str, Any]:
    """Name -> train.json of every policy that is finished."""
    from pipeline.train.model_folder import RESULT
    from pipeline.train.ppo.spec import runs_of

    paths = {run.name: folder / "policies" / run.name / RESULT for run in runs_of(spec)}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}


def _report(spec: "PpoSpec", folder: Path) -> Path:
    from pipeline.report.training.page import build_training_report

    html, _ = build_training_report(folder, spec.name, list(_finished(spec, folder)))
    return html


def _table(spec: "PpoSpec", folder: Path) -> Table:
    """Every finished policy, with the reward of the SFT model beside its own, and what is to be said of them."""
    table = Table("policy", "reward", "SFT", "policy", "KL", "updates", "seconds", "stopped")
    for name, found in _finished(spec, folder).items():
        before, after = (f"{found[key]['reward_mean']:.3f}" for key in ("sft", "val"))
        numbers = (f"{found['kl']:.1f}", str(found["updates"]), f"{found['seconds']:.0f}")
        table.add_row(name, found["reward"], before, after, *numbers, found["stopped"] or "no")
        table.caption = f"rewards: means over {found['val']['n']} val prompts, {found['sampled']}; KL in nats"
        for said in found["warnings"]:
            console.print(f"warning: {name}: {said}", style="yellow", soft_wrap=True, highlight=False, markup=False)
    return table
