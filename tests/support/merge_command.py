"""`lines merge` on small state dicts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer import Typer
from typer.testing import CliRunner

from pipeline.cli.merge import merge

app = Typer()
app.command()(merge)


def save(state: Mapping[str, Any], path: Path) -> str:
    """Write a .safetensors file or a pickle, by the suffix; return the path."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


def merge_sources(folder: Path, base: str, *experts: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Merge into `folder`/out.safetensors; return the exit status and what the command prints, on one line."""
    named = [f"--expert={expert}" for expert in experts]
    arguments = [f"--base={base}", *named, f"--output={folder / 'out.safetensors'}", "--overwrite", *options]
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, " ".join(result.output.split())


def merge_states_of(
    folder: Path, base: Mapping[str, Tensor], *experts: Mapping[str, object], options: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Write the models, and merge them as `merge_sources` does."""
    files = [save(state, folder / f"{i}.pt") for i, state in enumerate(experts)]
    return merge_sources(folder, save(base, folder / "base.safetensors"), *files, options=options)


def output(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of the merged file."""
    return load_file(folder / "out.safetensors")
