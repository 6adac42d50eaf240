"""Proves that signals end `lines finetune` and `lines ppo` with status 130, and that the same command resumes."""

import json
from pathlib import Path
from signal import SIGHUP, SIGINT

import pyarrow.parquet as pq
import pytest
from small_finetune import write_finetune
from small_ppo import write_ppo
from stopped_command import stopped
from typer.testing import CliRunner

from pipeline.cli.main import app

pytestmark = pytest.mark.training


def test_finetune_resumes_after_each_signal(tmp_path: Path) -> None:
    spec, out = write_finetune(tmp_path, methods={"full": {}}), tmp_path / "out"
    model, resumes = out / "full" / "emoji", "1 of 1 resume from a checkpoint: full/emoji"
    stopped("finetune", spec, out, [SIGHUP], lambda _: (model / "checkpoint.safetensors").exists())
    for signals in ([SIGINT], [SIGINT, SIGINT]):
        stopped("finetune", spec, out, signals, lambda output: resumes in output)
    assert not (model / "train.json").exists()
    found = CliRunner().invoke(app, ["finetune", str(spec), "--out", str(out)])
    assert found.exit_code == 0 and resumes in found.output, found.output
    assert pq.read_table(model / "log.parquet")["step"].to_pylist() == [*range(7)]
    assert json.loads((model / "train.json").read_text())["steps"] == 6


def test_ppo_resumes_after_each_signal_and_in_each_stage(ground: Path, tmp_path: Path) -> None:
    spec, out = write_ppo(tmp_path, ground), tmp_path / "out"
    policy = out / "policies" / "vowels"
    stopped("ppo", spec, out, [SIGHUP], lambda _: (out / "sft" / "checkpoint.safetensors").exists())
    output = stopped("ppo", spec, out, [SIGINT, SIGINT], lambda _: (policy / "checkpoint.safetensors").exists())
    assert "1 of 1 resume from a checkpoint: sft" in output
    output = stopped("ppo", spec, out, [SIGINT], lambda output: "resume from a checkpoint: policies" in output)
    assert "1 of 1 are finished: sft" in output and "1 of 2 resume from a checkpoint: policies/vowels" in output
    assert not (policy / "train.json").exists()
