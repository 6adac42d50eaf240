"""Proves that models are read as programs and hubs keep them: with the configuration that says what they compute."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from own_models import CONFIG, Trainer, visual, write_authors, write_hugging_face, write_training
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.files import locate
from pipeline.loading.experts import load_checkpoints
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from tasks.vision.clip.activation import warn_of_unknown

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with random weights, and open_clip's configuration of it."""
    folder = tmp_path_factory.mktemp("models") / "base"
    save_file(Trainer(folder).state(), folder / "open_clip_model.safetensors")
    return folder


def spec(base: Path | str, expert: str, config: Path, **options: str) -> RunSpec:
    return parse_spec(
        {
            "name": "formats",
            "backbone": {"family": "open_clip", "model": str(config), "options": options},
            "base": str(base),
            "experts": {"cats": expert},
            "tasks": {"cats": "data/cats"},
            "arms": {"fine-tuned": {"edit": "each_expert"}},
        }
    )


def base_state(models: Path) -> dict[str, Tensor]:
    return load_file(models / "open_clip_model.safetensors")


def tuned(models: Path) -> dict[str, Tensor]:
    """The base with another image tower; its projection is the base's."""
    state = base_state(models)
    return {n: t * 1.01 if n.startswith("visual.") and n != "visual.proj" else t for n, t in state.items()}


def delta(run: RunSpec) -> dict[str, Tensor]:
    return next(load_checkpoints(run, CPU)[1]).delta


def half(path: Path, state: dict[str, Tensor]) -> str:
    save_file({n: t.half() for n, t in state.items()}, path)
    return str(path)


def safetensors(path: Path, state: dict[str, Tensor]) -> str:
    save_file(state, path)
    return str(path)


WRITERS = {
    "open_clip": lambda folder, state: safetensors(folder / "a.safetensors", state),
    "image tower": lambda folder, state: safetensors(folder / "a.safetensors", visual(state)),
    "the authors'": lambda folder, state: write_authors(folder / "nonlinear_finetuned.pt", state),
    "training, data parallel": lambda folder, state: write_training(folder / "last.pth", state),
    "Hugging Face": lambda folder, state: write_hugging_face(folder / "hf", state),
    "float16": lambda folder, state: half(folder / "a.safetensors", state),
}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_task_vector(tmp_path: Path, models: Path, layout: str) -> None:
    expert, base = tuned(models), base_state(models)
    found = delta(spec(models, WRITERS[layout](tmp_path, expert), models / "open_clip_config.json"))
    tolerance = 1e-3 if layout == "float16" else 0
    for name, tensor in found.items():
        whole = f"visual.{name}"
        torch.testing.assert_close(tensor, expert[whole] - base[whole], rtol=0, atol=tolerance)
    assert any(t.any() for t in found.values())


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download needs: one repository, the files of `root`."""

    root: Path

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        path = self.root / self.path.split("/main/", 1)[-1]
        data = path.read_bytes() if path.is_file() else b""
        self.send_response(200 if path.is_file() else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag" if data else "X-Error-Code", f'"{hash(data):x}"' if data else "EntryNotFound")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub on this machine's loopback, with the repository owner/clip; gives its folder of files."""
    (root := tmp_path / "repository").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"root": root}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    template = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield root
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("inside", ["", "cats/"])
def test_a_repository_is_fetched_with_its_configuration(
    hub: Path, models: Path, caplog: pytest.LogCaptureFixture, inside: str
) -> None:
    write_hugging_face(hub / inside, tuned(models))
    source = f"hf:owner/clip/{inside}model.safetensors" if inside else "hf:owner/clip"
    assert (locate(source).weights[0].parent / "config.json").is_file()
    assert delta(spec(models, source, models / "open_clip_config.json"))
    assert "has no config.json" not in caplog.text


def test_the_activation_of_a_repository_is_checked_and_a_missing_one_is_told(
    hub: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = spec(models, "hf:owner/clip", models / "open_clip_config.json")
    write_hugging_face(hub, tuned(models), "gelu")
    config = (hub / "config.json").rename(hub / "elsewhere.json")
    delta(run)
    assert "has no config.json next to it; its activation is assumed to be quick_gelu" in caplog.text
    config.rename(hub / "config.json")
    with pytest.raises(ValueError, match="experts.cats: .*computes quick_gelu, but the weights next to .* need gelu"):
        delta(run)


def test_an_adapter_in_a_repository_is_named(hub: Path, models: Path) -> None:
    (hub / "adapter_config.json").write_text("{}")
    (hub / "adapter_model.safetensors").write_bytes(b"factors")
    with pytest.raises(ValueError, match="hf:owner/clip: a LoRA adapter, not a whole model: .*merge_and_unload"):
        read_checkpoint("hf:owner/clip")


def hugging_face_base(folder: Path, hidden_act: str) -> Any:
    transformers = pytest.importorskip("transformers")
    both = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_act": hidden_act}
    vision = both | {"hidden_size": 32, "intermediate_size": 128, "image_size": 16, "patch_size": 8}
    text = both | {"hidden_size": 32, "intermediate_size": 128, "max_position_embeddings": 7, "vocab_size": 49408}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)
    model = transformers.CLIPModel(config)
    model.save_pretrained(folder)
    return model


def small_config(path: Path, quick_gelu: bool) -> Path:
    text = CONFIG["text_cfg"] | {"context_length": 7, "width": 32, "heads": 2, "layers": 2}
    vision = {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    values = {"embed_dim": 16, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": text}
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("hidden_act", ["gelu", "quick_gelu"])
def test_a_base_of_transformers_says_its_activation_itself(tmp_path: Path, hidden_act: str) -> None:
    model = hugging_face_base(tmp_path / "base", hidden_act)
    with torch.no_grad():
        for tensor in model.vision_model.parameters():
            tensor.mul_(1.01)
    model.vision_model.save_pretrained(tmp_path / "expert")
    quick, plain = small_config(tmp_path / "quick.json", True), small_config(tmp_path / "plain.json", False)
    right, wrong = (plain, quick) if hidden_act == "gelu" else (quick, plain)
    found = delta(spec(tmp_path / "base", str(tmp_path / "expert"), right))
    assert found["conv1.weight"].any() and not found["proj"].any()
    with pytest.raises(ValueError, match=f"but the weights next to .*config.json need {hidden_act}"):
        load_checkpoints(spec(tmp_path / "base", str(tmp_path / "expert"), wrong), CPU)
    (tmp_path / "base" / "config.json").unlink()
    load_checkpoints(spec(tmp_path / "base", str(tmp_path / "expert"), right, activation=hidden_act), CPU)


def test_open_clips_own_configuration_says_the_activation_too(tmp_path: Path, models: Path) -> None:
    config = json.loads((models / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = False
    (tmp_path / "gelu.json").write_text(json.dumps(config))
    expert = WRITERS["open_clip"](tmp_path, tuned(models))
    with pytest.raises(
        ValueError, match="computes gelu, but the weights next to .*open_clip_config.json need quick_gelu"
    ):
        load_checkpoints(spec(models, expert, tmp_path / "gelu.json"), CPU)


def test_an_unknown_activation_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unknown("ViT-B-32-quickgelu", "quick_gelu", "a.pt")
        warn_of_unknown("own.json", "gelu", "a.pt")
    assert not caplog.text
    warn_of_unknown("ViT-B-32", "gelu", "a.pt")
    assert (
        "a.pt: the activation that these weights need is unknown" in caplog.text
        and "need ViT-B-32-quickgelu" in caplog.text
    )
