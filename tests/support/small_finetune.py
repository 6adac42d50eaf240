"""A real fine-tuning that takes seconds: the embedded base, two tasks, a few small steps."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.train.finetune.spec import FinetuneSpec, load_finetune_spec


def small_finetune(**changes: Any) -> dict[str, Any]:
    """Return a spec of two methods on one task: six steps of 16 images, with a checkpoint after every second one."""
    return {
        "name": "small",
        "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        "base": "embedded/base",
        "tasks": ["emoji"],
        "methods": {"full": {}, "lora": {"params": {"rank": 2}}},
        "training": {"lr": 1e-4, "steps": 6, "batch_size": 16, "augment": "jitter"},
        "limits": {"val": 40},
        "checkpoint_every": 2,
        "resources": {"pool": "local"},
        **changes,
    }


def write_finetune(folder: Path, **changes: Any) -> Path:
    """Write the spec to a file in `folder`."""
    path = folder / "finetune.yaml"
    path.write_text(yaml.safe_dump(small_finetune(**changes), sort_keys=False))
    return path


def read_finetune(folder: Path, **changes: Any) -> FinetuneSpec:
    """Write the spec, read it back and check it."""
    return load_finetune_spec(write_finetune(folder, **changes))


def outputs(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the weights and logs of every model."""
    kinds = ("model.safetensors", "adapter_config.json", "adapter_model.safetensors", "log.parquet")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.name in kinds}
