"""The command `lines ppo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import MODELS_KEPT, ModelsFolder, ModelWorkers, PoolName, RayAddress
from pipeline.cluster.auth import use_token
from pipeline.console import console, folded_table, user_errors

if TYPE_CHECKING:  # torch and Ray take seconds to import, which `lines --help` need not wait for
    from pipeline.train.ppo.spec import PpoSpec


def ppo(
    spec: Annotated[Path, typer.Argument(help="The spec of the training, a YAML file.", metavar="SPEC")],
    out: ModelsFolder = None,
    address: RayAddress = None,
    pool: PoolName = None,
    workers: ModelWorkers = None,
) -> None:
    """Train an SFT model and, from it, one policy for each reward of SPEC; rerun the command to resume.

    Each policy is a LoRA adapter that the spec of a run can name as an expert, with the SFT model as its base.
    """
    with user_errors(MODELS_KEPT):
        from pipeline.train.ppo.packages import check_packages
        from pipeline.train.ppo.spec import load_ppo_spec

        read = load_ppo_spec(spec)
        check_packages()
        use_token(address)  # before Ray is imported
        from pipeline.train.launch import LaunchOptions, launch
        from pipeline.train.ppo.preparation import Stages

        launch("ppo", read, LaunchOptions(out, address, pool, workers), Stages, _summarise)


def _summarise(spec: "PpoSpec", folder: Path) -> str:
    """Print the rewards of every finished policy and of the SFT model, and warnings; write the report."""
    from pipeline.report.training.page import build_training_report
    from pipeline.train.model_folder import read_results
    from pipeline.train.ppo.spec import runs_of

    table = folded_table("policy", "reward", "SFT", "policy", "KL", "updates", "seconds", "stopped")
    results = read_results(folder / "policies", [run.name for run in runs_of(spec)])
    for name, result in results.items():
        before, after = (f"{result[key]['reward_mean']:.3f}" for key in ("sft", "val"))
        numbers = (f"{result['kl']:.1f}", str(result["updates"]), f"{result['seconds']:.0f}")
        table.add_row(name, result["reward"], before, after, *numbers, result["stopped"] or "no")
        table.caption = f"rewards: means over {result['val']['n']} val prompts, {result['sampled']}; KL in nats"
        for text in result["warnings"]:
            console.print(f"warning: {name}: {text}", style="yellow", soft_wrap=True, highlight=False)
    report, _ = build_training_report(folder, spec.name, list(results))
    console.print(table)
    return f"models: {folder}\nreport: {report}"
