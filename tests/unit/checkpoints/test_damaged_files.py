"""Proves that damaged, hostile and unusual files end in an error that names them, within memory of their size."""

import json
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lazy import open_checkpoint
from pipeline.checkpoints.lora import read_adapter

STATE = {"h.0.w": torch.arange(6.0).reshape(2, 3), "h.1.w": torch.ones(3)}


def refuses(path: Path, message: str) -> None:
    for read in (read_checkpoint, open_checkpoint):
        with pytest.raises(ValueError, match=message) as raised:
            read(str(path))
        assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(1).expand(2_000_000_000), r"a file of 1,\d\d\d bytes that expands to 8,000,000,000"),
        (torch.empty(2, device="meta"), "w .without values, on the meta device"),
        (torch.ones(2).to_sparse(), r"w .sparse_coo: save it after .to_dense\(\)"),
        (torch.ones(2, 2).to_sparse_csr(), "w .sparse_csr"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), r"w .quantised: save it after .dequantize\(\)"),
    ],
)
def test_tensors_that_are_no_plain_numbers(tmp_path: Path, tensor: Tensor, message: str) -> None:
    torch.save({"w": tensor}, tmp_path / "a.pt")
    refuses(tmp_path / "a.pt", message)


def test_a_file_may_hold_a_weight_under_several_names_and_small_views(tmp_path: Path) -> None:
    weight = torch.arange(300_000.0)
    state = {"a": weight, "b": weight, "c": weight, "d": weight, "ids": torch.arange(3).expand(4, 3)}
    torch.save(state, tmp_path / "a.pt")
    found = read_checkpoint(str(tmp_path / "a.pt")).state
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_an_archive_that_expands_is_refused_before_it_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2_000_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "a.pt", "w", 8) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    refuses(tmp_path / "a.pt", "that expands to 8,00")


def save_legacy(state: object, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, save_legacy, save_file])
@pytest.mark.parametrize("step", [3])
def test_flipped_and_cut_files_are_read_or_named(tmp_path: Path, save: Callable[..., None], step: int) -> None:
    path = tmp_path / ("a.safetensors" if save is save_file else "a.pt")
    save(STATE, path)
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        for data in (whole[:place], whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]):
            path.write_bytes(data)
            try:
                read_checkpoint(str(path))
            except ValueError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("8002") + b"]q\x00.",
        b"\x80\x02c\xff\xfe\n.",
        b"\x80\x02J",
        b"\x80\x02N}R.",
        b"\x80\x02h\x05.",
        b"\x80\x02(((((t.",
        struct.pack("<Q", 2**63) + b"{}",
        b"PK\x03\x04" + bytes(40),
    ],
)
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.ckpt"])
def test_bytes_that_are_no_model(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    refuses(tmp_path / name, "truncated|refused|cannot be read|must hold")


def test_the_empty_tensors_of_a_part_of_a_model_are_named(tmp_path: Path) -> None:
    torch.save({"module": {name: torch.empty(0) for name in STATE}}, tmp_path / "a.pt")
    refuses(tmp_path / "a.pt", r"most tensors are empty \(h.0.w, h.1.w\), .* zero_to_fp32.py")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pt").symlink_to(tmp_path / "a.pt.gone")
    with pytest.raises(ValueError, match="a.pt: no such file"):
        read_checkpoint(str(tmp_path / "a.pt"))


@pytest.mark.slow
def test_memory_stays_near_the_files_size(tmp_path: Path) -> None:
    """A file of 2 kB that claims 8 GB is refused by a process that may hold 6 GB."""
    torch.save({"w": torch.ones(1).expand(2_000_000_000)}, tmp_path / "a.pt")
    code = "import sys; from pipeline.checkpoints.lazy import open_checkpoint; open_checkpoint(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.pt")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30)),
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ValueError" in done.stderr and "that expands to 8,000,000,000" in done.stderr


DEEP = '{"peft_type": ' + "[" * 50_000 + "]" * 50_000 + "}"


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "adapter_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(DEEP, "nested too deeply"), ("[1]", "must"), ("{", "not JSON"), ('"\\ud800', "not JSON"), ("1", "must")],
)
def test_json_of_others(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    save_file(STATE, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=f"{tmp_path}: {name}.*{message}"):
        read_adapter(locate(str(tmp_path)))


def adapter(folder: Path, change: Callable[[Tensor], Tensor], **config: Any) -> Path:
    factors = {f"base_model.model.h.lora_{side}.weight": change(torch.ones(2, 2)) for side in "AB"}
    torch.save(factors, folder / "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to(torch.complex64), "must hold real floating-point numbers, got .*complex64"),
        (lambda t: t.to(torch.int8), "must hold real floating-point numbers, got .*int8"),
        (lambda t: t.to_sparse(), "sparse_coo: save it after"),
        (lambda t: t.to("meta"), "on the meta device"),
    ],
)
def test_factors_that_are_no_real_numbers(tmp_path: Path, change: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}.*{message}"):
        read_adapter(locate(str(adapter(tmp_path, change))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "4", [[[[4]]]]])
@pytest.mark.parametrize("field", ["r", "lora_alpha"])
def test_scales_that_are_no_numbers(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field}: must be a positive number, got"):
        read_adapter(locate(str(adapter(tmp_path, torch.clone, **{field: value}))))


def test_float8_factors_are_numbers(tmp_path: Path) -> None:
    found = read_adapter(locate(str(adapter(tmp_path, lambda t: (1.5 * t).to(torch.float8_e4m3fn)))))
    assert found.factors["h"].b.tolist() == [[3.0, 3.0]] * 2 and found.factors["h"].a.tolist() == [[1.5, 1.5]] * 2
