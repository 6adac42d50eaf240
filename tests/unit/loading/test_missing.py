"""Proves that all missing files of a spec are reported together, without waiting for a hub that gives no answer."""

import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from published_sets import writers

from pipeline.loading.missing import check_present
from pipeline.loading.spec_sources import SpecSources
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from tasks.vision.clip.architectures import pretrained_source

EXPERT = "single_task/ViT-B-32/{}Val/nonlinear_finetuned.pt"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The local cache of a hub at whose address nothing listens."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LINES_SWEEP_DATA", str(tmp_path / "data"))
    return tmp_path / "hub"


def put(hub: Path, repo: str, file: str) -> Path:
    """A file of the local cache, in its layout."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    path = folder / "snapshots/abc" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs/main").write_text("abc")
    return path


def spec(**changes: Any) -> RunSpec:
    values = {
        "name": "paper",
        "backbone": {"family": "open_clip", "model": "ViT-B-32-quickgelu"},
        "base": "pretrained:openai",
        "experts": {name: f"hf:nik-dim/tall_masks/{EXPERT.format(name)}" for name in ("MNIST", "Cars")},
        "tasks": {"MNIST": "vision/MNIST", "Cars": "vision/Cars"},
        "ood": {"V2": "vision/ImageNetV2"},
        "arms": {"sum": {"merge": "sum"}},
    }
    return parse_spec(values | changes, "spec")


def look_for(run: RunSpec, *fetched: str) -> None:
    check_present(run, SpecSources(run, run.experts), *fetched)


def reported(run: RunSpec) -> list[str]:
    with pytest.raises(ValueError) as raised:
        look_for(run)
    return str(raised.value).splitlines()


def test_checkpoints_and_data_are_reported_together() -> None:
    start = time.monotonic()
    lines = reported(spec())
    assert time.monotonic() - start < 5  # the hub's client alone tries for half a minute a file
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "tasks.MNIST",
        "tasks.Cars",
        "ood.V2",
        "the hub is out of reach (http",
        "base",
        "experts.MNIST",
        "experts.Cars",
    ]
    assert "`lines prepare` fetches it" in lines[1] and "the authors' host is gone" in lines[2]
    assert "nik-dim/tall_masks/single_task/ViT-B-32/MNISTVal/nonlinear_finetuned.pt" in lines[6]
    assert sum("out of reach" in line for line in lines) == 1


@pytest.mark.parametrize("place", ["soups", "hf:owner/soups"])
def test_many_files_of_one_folder_are_one_line(place: str, tmp_path: Path) -> None:
    experts = {f"model {i}": f"{place}/model_{i}.pt" for i in range(1, 7)} | {"other": str(tmp_path / "other.pt")}
    run = spec(
        base="embedded/base", experts=experts, tasks={"t": "embedded/mnist"}, targets=dict.fromkeys(experts, "t")
    )
    lines = [line.strip() for line in reported(run) if line.strip().startswith("experts.")]
    assert [line.split(":")[0] for line in lines] == [
        f"experts.model 1 and 5 more of {place.split(':')[0]}",
        "experts.other",
    ]
    assert f"more of {place}: {place}/model_1.pt: " in lines[0]


def test_prepare_does_not_advise_to_prepare() -> None:
    with pytest.raises(ValueError, match="MNIST/raw: not fetched yet; or put") as raised:
        look_for(spec(), "not fetched yet")
    assert "`lines prepare` fetches" not in str(raised.value)


def test_what_is_in_the_local_cache_is_not_missing(hub: Path, tmp_path: Path) -> None:
    weights = put(hub, "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")
    put(hub, "nik-dim/tall_masks", EXPERT.format("MNIST"))
    run = spec(experts={"MNIST": f"hf:nik-dim/tall_masks/{EXPERT.format('MNIST')}"}, tasks={"MNIST": "vision/MNIST"})
    assert pretrained_source("ViT-B-32-quickgelu", "openai") == str(weights)
    assert [line.split(":")[0].strip() for line in reported(run)[1:]] == ["tasks.MNIST", "ood.V2"]
    writers()["MNIST"](tmp_path / "data")
    writers()["ImageNetV2"](tmp_path / "data")
    look_for(run)


def test_a_single_missing_file_is_one_line() -> None:
    run = spec(base="embedded/base", experts={"MNIST": "embedded/nowhere"}, tasks={"MNIST": "embedded/mnist"}, ood={})
    (line,) = reported(run)
    assert line.startswith("experts.MNIST: embedded/nowhere: not embedded")


def test_own_folders_are_reported_beside_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    run = spec(
        base="embedded/base",
        experts={"birds": str(tmp_path / "birds.pt")},
        tasks={"birds": f"{tmp_path}/photo", "mnist": "embedded/mnist"},
        ood={"sketches": "./sketches"},
    )
    lines = [line.strip() for line in reported(run)]
    assert [line.split(":")[0] for line in lines[1:]] == ["tasks.birds", "ood.sketches", "experts.birds"]
    assert "is not a folder" in lines[1] and f"did you mean '{tmp_path}/photos'?" in lines[1]


def test_own_texts_are_reported_and_names_of_plug_ins_are_not(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    run = spec(
        backbone={"family": "causal", "model": str(tmp_path)},
        base=str(tmp_path),
        experts={"e": str(tmp_path)},
        tasks={"notes": {"source": f"{tmp_path}/note.txt", "options": {"metric": "bits_per_byte"}}, "own": "mine/one"},
        targets={"e": "own"},
        ood={},
        plugins=["my_tasks"],
    )
    (line,) = (line.strip() for line in reported(run) if "tasks." in line)
    assert line == f"tasks.notes: {tmp_path}/note.txt: there is no such file or folder; did you mean 'notes.txt'?"
