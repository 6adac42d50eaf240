"""The command `lines finetune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.common import MODELS_KEPT, ModelsFolder, ModelWorkers, PoolName, RayAddress
from pipeline.cluster.auth import use_token
from pipeline.console import console, folded_table, user_errors

if TYPE_CHECKING:  # torch and Ray take seconds to import, which `lines --help` need not wait for
    from pipeline.loading.model import Report
    from pipeline.train.finetune.preparation import FinetuneJob
    from pipeline.train.finetune.spec import FinetuneSpec
    from pipeline.train.job import Stage


def finetune(
    spec: Annotated[Path, typer.Argument(help="The spec of the fine-tuning, a YAML file.", metavar="SPEC")],
    out: ModelsFolder = None,
    address: RayAddress = None,
    pool: PoolName = None,
    workers: ModelWorkers = None,
) -> None:
    """Fine-tune a vision or language model on each task of SPEC by each of its methods; rerun the command to resume.

    Each model is a folder that the spec of a run can name as an expert.
    """
    with user_errors(MODELS_KEPT):
        from pipeline.train.finetune.spec import load_finetune_spec

        read = load_finetune_spec(spec)
        use_token(address)  # before Ray is imported
        from pipeline.train.launch import LaunchOptions, launch

        launch("finetune", read, LaunchOptions(out, address, pool, workers), _stages, _summarise)


def _stages(spec: "FinetuneSpec", folder: Path, device_type: str, report: "Report") -> "list[Stage[FinetuneJob]]":
    from pipeline.train.finetune.preparation import prepare
    from pipeline.train.finetune.trainer import finetune as train
    from pipeline.train.job import Stage

    return [Stage("models", train, prepare(spec, folder, device_type, report))]


def _summarise(spec: "FinetuneSpec", folder: Path) -> str:
    """Print the accuracy of every finished model on validation, before and after."""
    from pipeline.train.finetune.spec import runs_of
    from pipeline.train.model_folder import read_results

    table = folded_table("model", "method", "steps", "val, base", "val", "seconds")
    methods = {run.name: run.method for run in runs_of(spec)}
    for name, result in read_results(folder, methods).items():
        before, after = (f"{100 * result[key]:.1f}" for key in ("base_val_accuracy", "val_accuracy"))
        table.add_row(name, methods[name], str(result["steps"]), before, after, f"{result['seconds']:.0f}")
    console.print(table)
    return f"models: {folder}"
