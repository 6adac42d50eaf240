"""A real run that takes seconds: the embedded base, experts with slightly changed weights, few samples."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pipeline.cli.main import app
from tasks.embedded import checkpoint_path

TASKS = ("clipart", "mnist")


def write_experts(folder: Path) -> dict[str, Path]:
    """Write one expert for each task: the base with noise on its image tower, as after a short fine-tuning."""
    base = load_file(checkpoint_path("base"))
    paths = {}
    for seed, name in enumerate(TASKS):
        noise = torch.Generator().manual_seed(seed)
        state = {
            k: v + 0.2 * v.std(correction=0) * torch.randn(v.shape, generator=noise) if k.startswith("visual.") else v
            for k, v in base.items()
        }
        paths[name] = folder / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in state.items()}, paths[name])
    return paths


def small_spec(experts: dict[str, Path], **changes: Any) -> dict[str, Any]:
    """Return a spec of two experts, edits with controls and a merge: about 200 shards of 15 samples."""
    scaling = {"function": "linear", "alpha": {"grid": [0.0, 0.5, 1.0]}, "beta": "1 - alpha"}
    return {
        "name": "small",
        "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        "base": "embedded/base",
        "experts": {name: str(path) for name, path in experts.items()},
        "tasks": list(TASKS),
        "arms": {"LiNeS": {"edit": "each_expert", "scaling": scaling}, "sum": {"merge": "sum"}},
        "controls": {"kinds": ["uniform", "reversed"], "constants": 3},
        "limits": {"val": 30, "test": 30},
        "shard_size": 15,
        "resources": {"pool": "local"},
        **changes,
    }


def write_spec(folder: Path, spec: dict[str, Any]) -> Path:
    """Write the spec to a file in `folder`."""
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def tables(run: Path) -> dict[str, bytes]:
    """Return the bytes of each table of a run."""
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*.parquet"))}


def rows(run: Path, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table of a run."""
    found: list[dict[str, Any]] = pq.read_table(run / f"{table}.parquet").to_pylist()
    return found


def command(*words: object) -> tuple[int, str]:
    """Run the command `lines` in this process; return the exit status, and the output without line breaks."""
    found = CliRunner().invoke(app, [str(w) for w in words])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, " ".join(found.output.split())


class Lines:
    """Runs the command `lines` in this process, on small experts, in its own folder."""

    def __init__(self, folder: Path, experts: dict[str, Path]) -> None:
        self.folder, self.experts = folder, experts

    def spec(self, **changes: Any) -> Path:
        return write_spec(self.folder, {**small_spec(self.experts), **changes})

    def __call__(self, *words: object) -> tuple[int, str]:
        return command(*words)

    def run(self, spec: Path, out: Path) -> tuple[int, str]:
        """Execute `lines run` without the score cache, so that this run computes every score."""
        return self("run", spec, "--out", out, "--no-cache")
