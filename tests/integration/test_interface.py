"""Proves that a notebook can execute a spec given as a mapping, read its results and export the chosen model."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_run import small_spec

import lines_sweep as lines
from pipeline.errors import UserError


def test_a_mapping_becomes_a_run_and_its_chosen_model_a_folder(
    tmp_path: Path, experts: dict[str, Path], decoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))
    spec = small_spec({name: path.name for name, path in experts.items()}, limits={"val": 6, "test": 6})
    for path in experts.values():
        (tmp_path / path.name).symlink_to(path)
    run = lines.run(spec, pool="local")
    assert run.place == "runs/small" and run.failures == [] and (tmp_path / "runs/small/report.html").is_file()
    assert run.candidates.num_rows == lines.open_run("runs/small").candidates.num_rows > 10
    folder = run.export("LiNeS", "chosen", expert="mnist", point={"alpha": 0.5})
    state = load_file(folder / "open_clip_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_spec_that_is_not_valid_names_its_field_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spec: seeds: unknown key"):
        lines.run(small_spec({"mnist": tmp_path / "a.safetensors"}, seeds=1), out=tmp_path / "run")
    with pytest.raises((ValueError, UserError), match=r"a\.safetensors"):
        lines.run(small_spec({"mnist": tmp_path / "a.safetensors"}, tasks=["mnist"]), out=tmp_path / "run")
