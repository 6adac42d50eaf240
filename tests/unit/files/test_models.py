"""Proves that a model at a URL is fetched once, again after a change, and that errors name the URL."""

import json
from pathlib import Path

import pytest
import torch
from faulty_place import memory_place
from safetensors.torch import save

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.files import locate
from tasks.files import models as fetched
from tasks.files.models import nearby
from tasks.files.object_store import StoreFolder

STATE = {"a": torch.arange(4.0)}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> StoreFolder:
    monkeypatch.setattr(fetched, "fetched", {})
    return memory_place()


def test_what_is_no_url_is_left_alone() -> None:
    assert nearby("embedded/base") == "embedded/base" and nearby("/a/b.pt") == "/a/b.pt"


def test_a_file_is_fetched_once_with_its_companions(place: StoreFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write("model.safetensors", save(STATE))
    place.write("config.json", b"{}")
    place.write("other.safetensors", b"not asked for")
    url, seen = f"{place.url}/model.safetensors", list[tuple[str, int, int]]()
    path = Path(nearby(url, lambda *progress: seen.append(progress)))
    assert sorted(p.name for p in path.parent.iterdir()) == ["config.json", "model.safetensors"]
    assert ("model.safetensors", len(save(STATE)), len(save(STATE))) in seen
    assert torch.equal(read_checkpoint(url).state["a"], STATE["a"])
    monkeypatch.setattr(fetched, "fetched", {})
    seen.clear()
    assert Path(nearby(url, lambda *progress: seen.append(progress))) == path and not seen


def test_a_changed_model_is_fetched_again(place: StoreFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{place.url}/model.safetensors"
    place.write("model.safetensors", save(STATE))
    first = read_checkpoint(url).fingerprint
    place.write("model.safetensors", save({"a": torch.arange(5.0)}))
    assert read_checkpoint(url).fingerprint == first, "within a process a model stays what it was"
    monkeypatch.setattr(fetched, "fetched", {})
    assert read_checkpoint(url).fingerprint != first


def test_a_folder_is_fetched_with_its_shards_and_without_other_formats(place: StoreFolder) -> None:
    shards = {"one.safetensors": save({"a": torch.ones(2)}), "two.safetensors": save({"b": torch.ones(2)})}
    for name, data in {**shards, "tokenizer.json": b"{}", "pytorch_model.bin": b"x", "deep/x.json": b"{}"}.items():
        place.write(name, data)
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    place.write("model.safetensors.index.json", json.dumps(index).encode())
    files = locate(place.url).weights
    assert [f.name for f in files] == ["one.safetensors", "two.safetensors"]
    names = {p.name for p in files[0].parent.iterdir()}
    assert names == {*shards, "tokenizer.json", "model.safetensors.index.json"}
    assert read_checkpoint(place.url).state.keys() == {"a", "b"}
    assert read_checkpoint(f"{place.url}/model.safetensors.index.json").state.keys() == {"a", "b"}


@pytest.mark.parametrize("name", ["{victim}", "../../../../victim.txt", "a/b", "..", "", "a\\b", 3])
def test_an_index_names_files_beside_it_alone(place: StoreFolder, tmp_path: Path, name: str | int) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    shard = name.format(victim=victim) if isinstance(name, str) else name
    place.write("model.safetensors.index.json", json.dumps({"weight_map": {"a": shard}}).encode())
    with pytest.raises(ValueError, match="index.json: must name files beside it"):
        locate(place.url)
    assert victim.read_text() == "mine"


def test_an_adapter_is_found_as_one(place: StoreFolder) -> None:
    place.write("adapter_config.json", b"{}")
    place.write("adapter_model.safetensors", save(STATE))
    files = locate(place.url)
    assert [f.name for f in files.weights] == ["adapter_model.safetensors"]
    assert files.adapter_config is not None and files.adapter_config.is_file()


@pytest.mark.parametrize("name", ["none.safetensors", "none"])
def test_the_error_of_a_missing_model_names_its_url(place: StoreFolder, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{place.url}/{name}: (the object does not exist|no folder of a model)"):
        locate(f"{place.url}/{name}")


def test_the_error_of_a_folder_without_weights_names_its_url(place: StoreFolder) -> None:
    place.write("config.json", b"{}")
    with pytest.raises(ValueError, match=f"^{place.url}: a folder without weights"):
        locate(place.url)
