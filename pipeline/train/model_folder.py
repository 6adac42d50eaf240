"""The folder of one model in training: its log, its result, and the checkpoint from which training resumes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.checkpoints.writing import write_safetensors
from pipeline.records.tables import write
from pipeline.train.policy_log import TRAINING_FILE
from tasks.files.atomic import write_whole

CHECKPOINT, RESULT, LOG, COMPLETIONS = "checkpoint.safetensors", "train.json", "log.parquet", "completions.parquet"
#: Files that a job may leave if it is killed before its first checkpoint or before its end; it starts over.
_LEFTOVERS = (LOG, TRAINING_FILE, COMPLETIONS)
Condition = Literal["new", "started", "finished"]

#: One row for each step, and one for the base (step 0).
LOG_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), False),  # updates done
        pa.field("loss", pa.float64()),  # of the step's batch, before the update; null at step 0
        pa.field("lr", pa.float64()),  # the highest rate of all layers in this step
        pa.field("grad_norm", pa.float64()),  # before clipping
        pa.field("val_accuracy", pa.float64()),  # after the update; null if it was not measured
    ]
)


@dataclass
class State:
    """How far training is: the content of a checkpoint.

    Attributes:
        step: updates done.
        seconds: duration of training so far, over all attempts.
        log: rows of LOG_SCHEMA.
        tensors: trained tensors and the optimiser's moments, by "weights.NAME", "exp_avg.NAME" and "exp_avg_sq.NAME".
    """

    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def condition(folder: Path, identity: Mapping[str, Any]) -> Condition:
    """Return how far the model of this identity is in `folder`, which need not exist.

    Raises:
        ValueError: if the folder holds another model, or other files.
    """
    here = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if RESULT in here:
        _check(folder, json.loads((folder / RESULT).read_text())["identity"], identity)
        return "finished"
    if CHECKPOINT in here:
        _check(folder, json.loads(_metadata(folder)["identity"]), identity)
        return "started"
    if others := [name for name in here if name not in _LEFTOVERS and not name.endswith(".partial")]:
        raise ValueError(f"{folder}: holds something else ({', '.join(others[:3])}); choose another --out")
    return "new"


def _check(folder: Path, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise ValueError with what differs, comparing both identities as JSON."""
    mine, its = dict(_flat(json.loads(json.dumps(identity)))), dict(_flat(found))
    differs = [f"{key} {its.get(key)!r}, not {mine.get(key)!r}" for key in mine | its if mine.get(key) != its.get(key)]
    if differs:
        raise ValueError(
            f"{folder}: holds a model that was trained differently: {'; '.join(differs)}; choose another --out, or "
            "delete the folder"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def save_state(folder: Path, identity: Mapping[str, Any], state: State) -> None:
    """Write the checkpoint atomically.

    Raises:
        ValueError: if it cannot be written; the previous checkpoint is kept.
    """
    progress = {"step": state.step, "seconds": state.seconds, "log": state.log}
    metadata = {"identity": json.dumps(identity), "progress": json.dumps(progress)}
    write_safetensors(folder / CHECKPOINT, state.tensors, metadata)


def load_state(folder: Path) -> State:
    """Read the checkpoint: tensors and JSON, no code.

    Raises:
        ValueError: if it is damaged.
    """
    progress = json.loads(_metadata(folder)["progress"])
    with safe_open(folder / CHECKPOINT, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return State(progress["step"], progress["seconds"], progress["log"], tensors)


def _metadata(folder: Path) -> Mapping[str, str]:
    path = folder / CHECKPOINT
    try:
        with safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error}); delete the folder to train this model from the start") from error
    if not {"identity", "progress"} <= metadata.keys():
        raise ValueError(f"{path}: is not a checkpoint of a training; choose another --out")
    return metadata


def write_log(folder: Path, state: State) -> None:
    """Write the rows so far to log.parquet."""
    write(folder / LOG, state.log, LOG_SCHEMA)


def finish(folder: Path, result: Mapping[str, Any]) -> None:
    """Write train.json, which marks the model as finished, and delete the checkpoint."""
    write_whole(folder / RESULT, json.dumps(result, indent=2) + "\n")
    (folder / CHECKPOINT).unlink(missing_ok=True)


def read_results(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return name -> train.json of every finished model among `names`, in their order."""
    paths = {name: folder / name / RESULT for name in names}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}


def optimiser_tensors(optimiser: torch.optim.Optimizer, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return trained tensors and AdamW's two moments of each, on the CPU, under the names of `State.tensors`."""
    tensors = {f"weights.{name}": p.detach().cpu() for name, p in trained.items()}
    for name, parameter in trained.items():
        for moment in ("exp_avg", "exp_avg_sq"):
            if parameter in optimiser.state:
                tensors[f"{moment}.{name}"] = optimiser.state[parameter][moment].cpu()
    return tensors


@torch.no_grad()
def restore_weights(trained: Mapping[str, Tensor], state: State) -> None:
    """Copy the checkpoint's tensors into the trained ones."""
    for name, parameter in trained.items():
        parameter.copy_(state.tensors[f"weights.{name}"])


def restore(optimiser: torch.optim.Optimizer, trained: Mapping[str, Tensor], state: State) -> None:
    """Restore trained tensors and AdamW's moments, as if every step had been done in this process."""
    restore_weights(trained, state)
    for name, parameter in trained.items():
        if f"exp_avg.{name}" in state.tensors:
            moments = {m: state.tensors[f"{m}.{name}"].to(parameter.device) for m in ("exp_avg", "exp_avg_sq")}
            done = torch.tensor(float(state.step), device=parameter.device)
            optimiser.state[parameter] = {"step": done, **moments}
