"""A fine-tuning of a tiny language model that takes a second: rows whose answer is a word of the text."""

import json
from pathlib import Path
from typing import Any

import yaml
from tiny_language import WHAT, bert_config, row, t5_config, write_tiny_encoder, write_tiny_llama, write_tiny_seq2seq

SPLITS = {"train": (24, 0), "val": (8, 100), "test": (8, 200)}


def write_language_base(folder: Path, family: str) -> Path:
    """Write a tiny random model of a family."""
    if family == "causal":
        return write_tiny_llama(folder, layers=2)
    if family == "seq2seq":
        return write_tiny_seq2seq(folder, t5_config(2, 2))
    return write_tiny_encoder(folder, bert_config())


def text_row(number: int, family: str) -> dict[str, Any]:
    """Return a package's description, and the kind of package as the right choice or the label."""
    found = row(number)
    kind = found["reference"].split()[0]
    if family == "encoder":
        return {"text": found["source"], "label": kind}
    return {"prompt": found["source"], "choices": list(WHAT), "label": kind}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a .jsonl file, and its folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def write_text_finetune(folder: Path, family: str, **changes: Any) -> Path:
    """Write model, rows and spec into `folder`: six steps of 8 rows, with a checkpoint after every second one."""
    if not (folder / "base").exists():
        write_language_base(folder / "base", family)
    for split, (count, start) in SPLITS.items():
        if not (path := folder / "kinds" / f"{split}.jsonl").exists():
            write_rows(path, [text_row(start + i, family) for i in range(count)])
    spec = {
        "name": "small",
        "backbone": {"family": family, "model": "base"},
        "base": "base",
        "tasks": {"kinds": "./kinds"},
        "methods": {"full": {}},
        "training": {"lr": 1e-3, "steps": 6, "batch_size": 8},
        "checkpoint_every": 2,
        "resources": {"pool": "local"},
        **changes,
    }
    path = folder / "finetune.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path
