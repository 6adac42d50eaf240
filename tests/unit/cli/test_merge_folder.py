"""Proves that `lines merge -o FOLDER/` writes a model that transformers loads, and never replaces another folder."""

import json
from pathlib import Path

import pytest
import torch
from merge_command import app
from safetensors.torch import load_file, save_file
from tiny_language import tiny_tokenizer, write_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from pipeline.checkpoints import model_folder


def merge(folder: Path, output: str, *options: str) -> tuple[int, str]:
    experts = [f"--expert={folder / name}" for name in ("a", "b")]
    result = CliRunner().invoke(app, [f"--base={folder / 'base'}", *experts, f"--output={output}", *options])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for seed, name in enumerate(("base", "a", "b")):
        write_tiny_llama(tmp_path / name, layers=2, seed=seed)
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "base" / "notes.md").write_text("not for others")
    return tmp_path


def test_transformers_loads_the_folder_and_its_tensors_are_those_of_the_file(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "_LARGEST_SHARD", 20_000)
    status, output = merge(models, f"{models}/merged/", "--beta=0.5")
    assert status == 0 and f"wrote {models}/merged/" in output and "no LiNeS" not in output, output
    status, output = merge(models, f"{models}/merged.safetensors", "--beta=0.5")
    assert status == 0, output
    merged = models / "merged"
    loaded = AutoModelForCausalLM.from_pretrained(merged)
    expected = load_file(models / "merged.safetensors")
    found = loaded.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert found["lm_head.weight"].data_ptr() == found["model.embed_tokens.weight"].data_ptr()
    assert len(list(merged.glob("model-*-of-*.safetensors"))) > 1
    assert json.loads((merged / "model.safetensors.index.json").read_text())["metadata"]["lines_sweep.recipe"]
    assert AutoTokenizer.from_pretrained(merged)("tool")["input_ids"] == tiny_tokenizer()("tool")["input_ids"]
    assert (merged / "chat_template.jinja").is_file() and not (merged / "notes.md").exists()
    card = (merged / "README.md").read_text()
    assert "Base: base. Experts: a, b." in card and str(models) not in card and "parameters" in card
    assert not list(models.glob("*.partial"))


def test_other_folders_are_not_replaced(models: Path) -> None:
    own = models / "own"
    own.mkdir()
    (own / "README.md").write_text("mine")
    status, output = merge(models, f"{own}/", "--overwrite")
    assert status == 2 and "holds no merged model, so it is not replaced" in output, output
    assert (own / "README.md").read_text() == "mine"
    assert merge(models, f"{models}/m/")[0] == 0
    status, output = merge(models, f"{models}/m/")
    assert status == 2 and "exists; choose another name, or give --overwrite" in output, output
    (models / "m" / "old.txt").write_text("")
    assert merge(models, f"{models}/m/", "--overwrite")[0] == 0
    assert not (models / "m" / "old.txt").exists()
    status, output = merge(models, f"{models}/m")
    assert status == 2 and "must end in .safetensors, or in / for a folder" in output, output


def test_what_is_missing_is_noted(models: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (models / "base" / name).unlink()
    status, output = merge(models, f"{models}/m/")
    assert status == 0 and "the base has no tokenizer beside its weights" in output, output
    assert "lambda is the same in every block, so this is no LiNeS: give --beta" in output
    (models / "base" / "config.json").unlink()
    status, output = merge(models, f"{models}/m/", "--overwrite")
    assert status == 0 and "the base has no config.json" in output, output


def test_a_vocabulary_of_another_size_is_an_error_that_names_the_way_out(models: Path) -> None:
    path = models / "a" / "model.safetensors"
    state = load_file(path)
    state["model.embed_tokens.weight"] = torch.zeros(310, 32)
    save_file(state, path, {"format": "pt"})
    status, output = merge(models, f"{models}/m/")
    assert status == 2 and "model.embed_tokens.weight" in output and "--exclude" in output, output
    assert not (models / "m").exists()
