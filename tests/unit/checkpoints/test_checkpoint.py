"""Proves that checkpoints of every format and source give the same tensors, and that bad ones are refused."""

import json
import os
import pickle
import re
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.checkpoints.checkpoint import fingerprint, read_checkpoint

STATE = {
    "visual.proj": torch.arange(6.0).reshape(2, 3),
    "visual.bias": torch.tensor([1.0, -0.5], dtype=torch.bfloat16),
    "steps": torch.tensor(3),
}


def check(source: str | Path, state: dict[str, Tensor] = STATE) -> None:
    checkpoint = read_checkpoint(str(source))
    assert checkpoint.source == str(source)
    assert checkpoint.state.keys() == state.keys()
    assert all(torch.equal(checkpoint.state[name], state[name]) for name in state)
    assert checkpoint.fingerprint == fingerprint(state)


def refuses(source: str | Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read_checkpoint(str(source))
    assert str(source) in str(raised.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "weights.pth", "weights.bin"])
def test_every_format_gives_the_same_tensors_and_fingerprint(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(STATE, path) if path.suffix == ".safetensors" else torch.save(STATE, path)
    check(path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {"state_dict": {"model": state}},
        lambda state: {name: torch.nn.Parameter(t, requires_grad=False) for name, t in state.items()},
    ],
)
def test_state_dicts_are_unwrapped(tmp_path: Path, wrap) -> None:
    torch.save(wrap(STATE), tmp_path / "weights.pt")
    check(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin"],
)
def test_folders_of_one_model(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(STATE, path) if path.suffix == ".safetensors" else torch.save(STATE, path)
    check(tmp_path)


def write_shards(folder: Path) -> None:
    names = list(STATE)
    shards = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(shards.values()):
        save_file({n: STATE[n] for n in names if shards[n] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def test_sharded_folders(tmp_path: Path) -> None:
    write_shards(tmp_path)
    check(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    refuses(tmp_path, "model-00002-of-00002.safetensors: no such file; did you mean 'model-00001-of-00002.safetensors'")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    refuses(tmp_path, "must hold a weight_map")


def test_embedded_checkpoints_are_part_of_the_package() -> None:
    assert read_checkpoint("embedded/base").state
    with pytest.raises(ValueError, match="embedded/no-such-name: not embedded"):
        read_checkpoint("embedded/no-such-name")


REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in the hub's own cache layout, without a network; gives its folder of files."""
    repo = tmp_path / "models--owner--clip"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(REVISION)
    (repo / "snapshots" / REVISION).mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return repo / "snapshots" / REVISION


@pytest.mark.parametrize("suffix", ["", f"@{REVISION}", "@main"])
def test_hub_repositories_by_id(hub: Path, suffix: str) -> None:
    torch.save(STATE, hub / "open_clip_pytorch_model.bin")
    check(f"hf:owner/clip{suffix}")


def test_hub_files_and_shards(hub: Path) -> None:
    (hub / "single_task").mkdir()
    torch.save(STATE, hub / "single_task" / "nonlinear_finetuned.pt")
    check("hf:owner/clip/single_task/nonlinear_finetuned.pt")
    check("hf:owner/clip/single_task/nonlinear_finetuned.pt@main")
    write_shards(hub)
    check("hf:owner/clip")
    check("hf:owner/clip/model.safetensors.index.json")
    (hub / "deep").mkdir()
    write_shards(hub / "deep")
    check("hf:owner/clip/deep/model.safetensors.index.json")


def test_hub_failures(hub: Path) -> None:
    refuses("hf:owner/clip", "found none of model.safetensors, .* in the local cache, and the hub is out of reach")
    refuses("hf:owner/clip/model.pt@v2", "found none of model.pt in the local cache")
    refuses("hf:clip", re.escape("must be hf:OWNER/REPO[/FILE][@REVISION]"))
    refuses("hf:ow ner/clip", "the hub refuses it")


def test_missing_files_suggest_near_names(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "finetuned.safetensors")
    refuses(tmp_path / "finetund.safetensors", "no such file; did you mean 'finetuned.safetensors'")
    (tmp_path / "finetund.txt").touch()
    refuses(tmp_path / "other.safetensors", r"other\.safetensors: no such file$")
    refuses(tmp_path / "nowhere" / "a.pt", "no such file, nor its folder")
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", "a folder without weights; expected one of model.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 30, -5])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_files(tmp_path: Path, suffix: str, keep: int) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:keep])
    refuses(path, "the file is empty" if keep == 0 else "truncated")


class Bomb:
    """Unpickling this runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_pickles_that_would_run_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save) -> None:
    monkeypatch.chdir(tmp_path)
    save({"weight": Bomb()}, tmp_path / "weights.pt")
    refuses(tmp_path / "weights.pt", r"refused: reading this pickle would run code \(posix.system\); .* safetensors")
    assert not (tmp_path / "exploded").exists()


def test_pickled_modules_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "weights.pt")
    refuses(tmp_path / "weights.pt", r"would run code \(torch.nn.modules.linear.Linear\)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a state dict, got list"),
        ({}, "holds no tensors"),
        (STATE | {"epoch": 3, "args": {}}, r"must hold tensors by name, got also 'epoch' \(int\), 'args' \(dict\)"),
        ({"a": torch.tensor([1.0, torch.nan]), "b": torch.tensor(torch.inf)}, "NaN or infinite values in a, b"),
    ],
)
def test_what_is_not_a_state_dict_of_finite_tensors(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    refuses(tmp_path / "weights.pt", message)


def test_programs_and_other_pickles_are_refused(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "program.pt")
    refuses(tmp_path / "program.pt", "a TorchScript program, not a state dict")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": [1.0]}, 4))
    refuses(tmp_path / "plain.pt", "refused: damaged, or a pickle of more than tensors")


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"hello world" * 10)
    refuses(tmp_path / "weights.pt", "not a file that torch.save wrote")
    (tmp_path / "weights.onnx").write_bytes(b"hello")
    refuses(tmp_path / "weights.onnx", r"must end in \.safetensors, \.pt, .*\.ckpt, \.pth\.tar, got '\.onnx'")


@pytest.mark.parametrize(
    "change",
    [
        {"steps": torch.tensor(4)},
        {"visual.proj": STATE["visual.proj"].reshape(3, 2)},
        {"visual.bias": STATE["visual.bias"].half()},
        {"extra": torch.zeros(1)},
    ],
)
def test_fingerprints_cover_names_types_shapes_and_values(change: dict[str, Tensor]) -> None:
    assert fingerprint(STATE | change) != fingerprint(STATE)
    assert fingerprint(dict(reversed(STATE.items()))) == fingerprint(STATE)
